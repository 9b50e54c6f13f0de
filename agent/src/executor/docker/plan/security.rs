//! Security settings as the engine's options.

use skep_proto::v1::{
    Privileges,
    privileges::{app_armor_opts::AppArmorMode, seccomp_opts::SeccompMode},
};

pub(super) fn plan(privileges: Option<&Privileges>) -> Result<Vec<String>, String> {
    let mut options = Vec::new();
    let Some(privileges) = privileges else {
        return Ok(options);
    };
    if privileges.credential_spec.is_some() {
        return Err("a credential spec is a setting of Windows; leave it out".to_owned());
    }
    if let Some(context) = &privileges.selinux_context {
        if context.disable {
            options.push("label=disable".to_owned());
        }
        let parts = [
            ("user", &context.user),
            ("role", &context.role),
            ("type", &context.r#type),
            ("level", &context.level),
        ];
        let parts = parts.into_iter().filter(|(_, value)| !value.is_empty());
        options.extend(parts.map(|(key, value)| format!("label={key}:{value}")));
    }
    if let Some(seccomp) = &privileges.seccomp {
        match seccomp.mode() {
            SeccompMode::Default => {}
            SeccompMode::Unconfined => options.push("seccomp=unconfined".to_owned()),
            SeccompMode::Custom => {
                let profile = std::str::from_utf8(&seccomp.profile)
                    .map_err(|_| "the seccomp profile is not JSON".to_owned())?;
                options.push(format!("seccomp={profile}"));
            }
        }
    }
    if let Some(apparmor) = &privileges.apparmor {
        match apparmor.mode() {
            AppArmorMode::Default => {}
            AppArmorMode::Disabled => options.push("apparmor=unconfined".to_owned()),
        }
    }
    if privileges.no_new_privileges {
        options.push("no-new-privileges=true".to_owned());
    }
    Ok(options)
}
