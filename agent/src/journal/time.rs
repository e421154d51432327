//! Times as the journal writes them: RFC 3339, UTC, microseconds.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A point in time, shown as `2026-11-21T23:48:33.123456Z`. Times before 1970 are shown as 1970.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Stamp(pub SystemTime);

impl Stamp {
    #[must_use]
    pub fn from_nanoseconds(nanoseconds: u64) -> Self {
        Self(SystemTime::UNIX_EPOCH + Duration::from_nanos(nanoseconds))
    }

    /// Reads RFC 3339 (offset `Z` or `±hh:mm`, any number of decimals), a date alone (midnight UTC), or an age such as `10m`,
    /// `2h`, `3d`, each optionally followed by ` ago`, counted back from `now`.
    #[must_use]
    pub fn parse(text: &str, now: SystemTime) -> Option<Self> {
        let text = text.trim();
        parse_age(text).and_then(|age| now.checked_sub(age)).map(Self).or_else(|| parse_rfc3339(text))
    }
}

impl Stamp {
    /// RFC 3339 in ASCII, without a formatter: every record has one. Years have four digits until 9999, and stay there.
    pub(super) fn ascii(self) -> [u8; STAMP_BYTES] {
        let since = self.0.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().min(LAST);
        let (days, second) = (since.as_secs() / DAY_S, since.as_secs() % DAY_S);
        let (year, month, day) = civil_from_days(i64::try_from(days).unwrap_or_default());
        let mut text = *b"0000-00-00T00:00:00.000000Z";
        let fields = [
            (4, year.unsigned_abs()),
            (7, month.unsigned_abs()),
            (10, day.unsigned_abs()),
            (13, second / 3600),
            (16, second / 60 % 60),
            (19, second % 60),
            (26, u64::from(since.subsec_micros())),
        ];
        for (end, mut value) in fields {
            // The template's zeros are the leading ones: whatever is left of them belongs to the field.
            for digit in text.iter_mut().take(end).rev() {
                if value == 0 {
                    break;
                }
                *digit = b'0' + u8::try_from(value % 10).unwrap_or_default();
                value /= 10;
            }
        }
        text
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(str::from_utf8(&self.ascii()).unwrap_or_default())
    }
}

impl Serialize for Stamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(str::from_utf8(&self.ascii()).unwrap_or_default())
    }
}

impl<'de> Deserialize<'de> for Stamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_rfc3339(&text).ok_or_else(|| serde::de::Error::custom("not an RFC 3339 time"))
    }
}

fn parse_age(text: &str) -> Option<Duration> {
    let text = text.strip_suffix("ago").unwrap_or(text).trim();
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let unit_s = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => DAY_S,
        _ => return None,
    };
    let number = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<u64>().ok())??;
    number.checked_mul(unit_s).map(Duration::from_secs)
}

fn parse_rfc3339(text: &str) -> Option<Stamp> {
    let (date, time) = text.split_once(['T', 't', ' ']).unwrap_or((text, "00:00:00Z"));
    let mut date = date.splitn(3, '-').map(|part| number(part, 4));
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let at = time.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = time.split_at_checked(at)?;
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let mut clock = clock.splitn(3, ':').map(|part| number(part, 2));
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let nanoseconds = number(&format!("{fraction:0<9}").get(..9).map(str::to_owned)?, 9)?;
    let seconds = days_from_civil(year, month, day) * DAY_S.cast_signed() + hour * 3600 + minute * 60 + second - offset_s(zone)?;
    let since = Duration::from_secs(u64::try_from(seconds).ok()?) + Duration::from_nanos(u64::try_from(nanoseconds).ok()?);
    SystemTime::UNIX_EPOCH.checked_add(since).map(Stamp)
}

fn offset_s(zone: &str) -> Option<i64> {
    if zone.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let (sign, rest) = if let Some(rest) = zone.strip_prefix('-') { (-1, rest) } else { (1, zone.strip_prefix('+')?) };
    let (hours, minutes) = rest.split_once(':')?;
    Some(sign * (number(hours, 2)? * 3600 + number(minutes, 2)? * 60))
}

fn number(digits: &str, digits_max: usize) -> Option<i64> {
    let plain = !digits.is_empty() && digits.len() <= digits_max && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok())?
}

/// Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms": the year starts in March, so that the leap day is its last.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

const DAY_S: u64 = 86_400;
const STAMP_BYTES: usize = 27;
/// 9999-12-31T23:59:59.999999Z.
const LAST: Duration = Duration::new(253_402_300_799, 999_999_999);

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<String> {
        Stamp::parse(text, SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000)).map(|stamp| stamp.to_string())
    }

    #[test]
    fn writes_what_it_reads() {
        for text in ["2024-02-29T23:59:59.000001Z", "1970-01-01T00:00:00.000000Z", "2100-03-01T12:00:00.999999Z"] {
            assert_eq!(parse(text).as_deref(), Some(text));
        }
        assert_eq!(Stamp::from_nanoseconds(1_000_000_000_000_000_000).to_string(), "2001-09-09T01:46:40.000000Z");
    }

    #[test]
    fn reads_offsets_dates_and_ages() {
        assert_eq!(parse("2026-11-21T23:48:33+02:00").as_deref(), Some("2026-11-21T21:48:33.000000Z"));
        assert_eq!(parse("2026-11-21").as_deref(), Some("2026-11-21T00:00:00.000000Z"));
        assert_eq!(parse("10m").as_deref(), Some("2001-09-09T01:36:40.000000Z"));
        assert_eq!(parse("2h ago").as_deref(), Some("2001-09-08T23:46:40.000000Z"));
    }

    #[test]
    fn refuses_what_is_not_a_time() {
        for text in [
            "",
            "m",
            "yesterday",
            "2026-13-01",
            "2026-11-21T25:00:00Z",
            "2026-11-21T10:00:00",
            "-5m",
            "99999999999999999999d",
            "é",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
