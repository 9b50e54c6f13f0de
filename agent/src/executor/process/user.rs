//! Which user a task's process runs as: `name`, `uid`, `name:group`, `uid:gid`.

use std::path::Path;

use rustix::process::{getegid, geteuid};

use crate::disk;

/// More than any sensible passwd or group file.
const MAX_FILE: u64 = 16 << 20;

/// The IDs a process gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ids {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// What must be set for a process to run as `user`: `None` for the daemon's own user.
///
/// An error says why this user cannot be had.
pub(super) fn resolve(user: &str) -> Result<Option<Ids>, String> {
    if user.is_empty() {
        return Ok(None);
    }
    let file = |path: &str| -> Result<String, String> {
        let bytes = disk::read(Path::new(path), MAX_FILE)
            .map_err(|error| format!("cannot look up user {user:?} in {path}: {error}"))?;
        Ok(String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned())
    };
    let ids = look_up(user, &file("/etc/passwd")?, &file("/etc/group")?)?;
    let own = Ids {
        uid: geteuid().as_raw(),
        gid: getegid().as_raw(),
    };
    if ids == own {
        return Ok(None);
    }
    if own.uid != 0 {
        return Err(format!(
            "user {user:?} cannot be had: the daemon runs as uid {} and only root may change users",
            own.uid
        ));
    }
    Ok(Some(ids))
}

/// The numbers of the groups a process gets besides its own.
pub(super) fn groups(groups: &[String]) -> Result<Vec<u32>, String> {
    if groups.is_empty() {
        return Ok(Vec::new());
    }
    if !geteuid().is_root() {
        return Err("extra groups cannot be had: only root may give them".to_owned());
    }
    let bytes = disk::read(Path::new("/etc/group"), MAX_FILE)
        .map_err(|error| format!("cannot look up groups in /etc/group: {error}"))?;
    let text = String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned();
    groups
        .iter()
        .map(|group| look_up_group(group, &text))
        .collect()
}

/// Finds the number of a group in the text of `/etc/group`.
fn look_up_group(group: &str, groups: &str) -> Result<u32, String> {
    // name:password:gid:members
    groups
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.len() >= 3 && !group.is_empty() && fields[0] == group)
        .map_or(group, |fields| fields[2])
        .parse()
        .map_err(|_| format!("group {group:?} does not exist on this host"))
}

/// Finds the IDs in the texts of `/etc/passwd` and `/etc/group`.
fn look_up(user: &str, passwd: &str, groups: &str) -> Result<Ids, String> {
    let (name, group) = match user.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (user, None),
    };
    // name:password:uid:gid:...
    let entry = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| {
            fields.len() >= 4 && !name.is_empty() && (fields[0] == name || fields[2] == name)
        });
    let uid = match &entry {
        Some(fields) => fields[2].parse().ok(),
        None => name.parse().ok(),
    };
    let uid: u32 = uid.ok_or_else(|| format!("user {name:?} does not exist on this host"))?;
    let gid = match group {
        Some(group) => look_up_group(group, groups)?,
        // A bare number that nobody has gets group 0, as it does in a container.
        None => entry.and_then(|fields| fields[3].parse().ok()).unwrap_or(0),
    };
    Ok(Ids { uid, gid })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/:/bin/false\nbroken\n";
    const GROUP: &str = "root:x:0:\nstaff:x:50:web\n";

    #[test]
    fn names_and_numbers_are_found() {
        let ids = |user| look_up(user, PASSWD, GROUP);
        assert_eq!(ids("web"), Ok(Ids { uid: 33, gid: 34 }));
        assert_eq!(ids("33"), Ok(Ids { uid: 33, gid: 34 }));
        assert_eq!(ids("web:staff"), Ok(Ids { uid: 33, gid: 50 }));
        assert_eq!(ids("web:7"), Ok(Ids { uid: 33, gid: 7 }));
        assert_eq!(ids("1234"), Ok(Ids { uid: 1234, gid: 0 }));
        for unknown in [
            "nobody-here",
            "web:nogroup",
            ":staff",
            "web:",
            "-1",
            "4294967296",
        ] {
            assert!(ids(unknown).is_err(), "{unknown}");
        }
    }

    #[test]
    fn groups_are_names_or_numbers() {
        assert_eq!(look_up_group("staff", GROUP), Ok(50));
        assert_eq!(look_up_group("4711", GROUP), Ok(4711));
        assert!(look_up_group("", GROUP).is_err());
        assert!(look_up_group("none", GROUP).is_err());
    }

    #[test]
    fn the_own_user_needs_no_change() {
        assert_eq!(resolve(""), Ok(None));
        let own = format!("{}:{}", geteuid().as_raw(), getegid().as_raw());
        assert_eq!(resolve(&own), Ok(None));
    }
}
