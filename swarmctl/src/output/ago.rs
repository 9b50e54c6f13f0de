//! Moments as people say them: "5 seconds ago".

use skep_proto::Timestamp;

/// How long ago `then` was at `now`, in one unit: `5 seconds ago`. `None` for moments that are not
/// on the calendar. What lies in the future (clocks differ) was just now.
pub(crate) fn ago(then: &Timestamp, now: jiff::Timestamp) -> Option<String> {
    let then = jiff::Timestamp::new(then.seconds, then.nanos).ok()?;
    Some(format!("{} ago", span(now.duration_since(then).as_secs())))
}

/// `moment` in RFC 3339, to the second.
pub(crate) fn moment(moment: &Timestamp) -> Option<String> {
    let moment = jiff::Timestamp::new(moment.seconds, 0).ok()?;
    Some(moment.to_string())
}

/// `seconds` in the one unit that says enough, in the words docker uses.
fn span(seconds: i64) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    match seconds {
        ..1 => "less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..MINUTE => format!("{seconds} seconds"),
        MINUTE..120 => "about a minute".to_owned(),
        120..HOUR => format!("{} minutes", seconds / MINUTE),
        HOUR..7200 => "about an hour".to_owned(),
        7200..172_800 => format!("{} hours", seconds / HOUR),
        172_800..1_209_600 => format!("{} days", seconds / DAY),
        1_209_600..5_184_000 => format!("{} weeks", seconds / (7 * DAY)),
        5_184_000..63_072_000 => format!("{} months", seconds / (30 * DAY)),
        _ => format!("{} years", seconds / (365 * DAY)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_unit_says_enough() {
        let cases = [
            (-5, "less than a second ago"),
            (0, "less than a second ago"),
            (1, "1 second ago"),
            (59, "59 seconds ago"),
            (60, "about a minute ago"),
            (119, "about a minute ago"),
            (120, "2 minutes ago"),
            (3599, "59 minutes ago"),
            (3600, "about an hour ago"),
            (7200, "2 hours ago"),
            (2 * 86_400, "2 days ago"),
            (14 * 86_400, "2 weeks ago"),
            (60 * 86_400, "2 months ago"),
            (730 * 86_400, "2 years ago"),
        ];
        let now = jiff::Timestamp::from_second(2_000_000_000).unwrap();
        for (seconds, words) in cases {
            let then = Timestamp {
                seconds: now.as_second() - seconds,
                nanos: 0,
            };
            assert_eq!(ago(&then, now).as_deref(), Some(words), "{seconds}");
        }
    }

    #[test]
    fn moments_off_the_calendar_are_not_shown() {
        let never = Timestamp {
            seconds: i64::MAX,
            nanos: -1,
        };
        assert_eq!(ago(&never, jiff::Timestamp::UNIX_EPOCH), None);
        assert_eq!(moment(&never), None);
        let epoch = Timestamp {
            seconds: 0,
            nanos: 999,
        };
        assert_eq!(moment(&epoch).as_deref(), Some("1970-01-01T00:00:00Z"));
    }
}
