//! Times as they are typed: an age or a life such as 90d, a day, or a moment.

use std::time::UNIX_EPOCH;

use berth_shared::clock::{LAST_WRITTEN, UnixSeconds};

use crate::grant_text::now;

/// When something happened: so long ago, on a day, or at a moment.
pub(crate) fn past(text: &str) -> Result<UnixSeconds, String> {
    let time = length(text).map(|age| now() - age).or_else(|| moment(text));
    time.ok_or_else(|| {
        format!(
            "{text:?} is no time: write an age such as 1h or 7d, 2026-11-01, or 2026-11-01T08:00:00Z"
        )
    })
}

/// When something is to end: after so long, with the beginning of a day, or at a moment.
pub(crate) fn end(text: &str) -> Result<UnixSeconds, String> {
    let end = length(text).map(|life| now() + life).or_else(|| moment(text));
    end.filter(|end| (now() + 1..=LAST_WRITTEN).contains(end)).ok_or_else(|| {
        format!(
            "{text:?} is no time to come: write how long, such as 90d or 12h, or until when, such \
             as 2030-01-31 or 2030-01-31T08:00:00Z"
        )
    })
}

/// A day, which is its beginning in UTC, or a moment of RFC 3339.
pub(crate) fn moment(text: &str) -> Option<UnixSeconds> {
    let is_day = text.len() == "2026-11-01".len();
    let time = if is_day { format!("{text}T00:00:00Z") } else { text.to_owned() };
    let time = humantime::parse_rfc3339_weak(&time).ok()?;
    i64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_secs()).ok().map(UnixSeconds::new)
}

/// How long something takes, in seconds.
fn length(text: &str) -> Option<i64> {
    let length = text.parse::<humantime::Duration>().ok()?;
    i64::try_from(length.as_secs()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_lengths_days_or_moments() {
        let hour_ago = now() - 3600;
        assert!((hour_ago..=hour_ago + 5).contains(&past("1h").unwrap()));
        for read in [past, |text: &str| moment(text).ok_or_else(String::new)] {
            assert_eq!(read("1970-01-02"), Ok(UnixSeconds::new(86_400)));
            assert_eq!(read("1970-01-01T00:01:00Z"), Ok(UnixSeconds::new(60)));
            assert_eq!(read("1970-01-01 00:01:00"), Ok(UnixSeconds::new(60)));
        }
        for bad in ["", "soon", "2026-13-01", "1969-01-01", "-1h", "90", "äöüßäöü"] {
            assert!(past(bad).unwrap_err().contains("2026-11-01"), "{bad}");
        }
    }

    #[test]
    fn what_ends_ends_in_the_future_and_before_the_year_10000() {
        let in_an_hour = now() + 3600;
        assert!((in_an_hour..=in_an_hour + 5).contains(&end("1h").unwrap()));
        assert_eq!(end("2100-01-01"), Ok(UnixSeconds::new(4_102_444_800)));
        assert_eq!(end("9999-12-31T23:59:59Z"), Ok(LAST_WRITTEN));
        for bad in ["", "0d", "90", "tomorrow", "2020-01-01", "9999999d", "99999999999999999999d"] {
            assert!(end(bad).unwrap_err().contains("90d"), "{bad}");
        }
    }
}
