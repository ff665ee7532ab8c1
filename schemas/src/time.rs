//! Points in time and lengths of time, as they are stored and printed. Nothing here reads a clock.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A point in time in UTC, to the millisecond; in JSON an RFC 3339 text such as
/// `2026-01-31T09:00:00.250Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UtcTime(i64);

impl UtcTime {
    /// From milliseconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// The time from `earlier` to this one; zero where `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// This time and `length` more, saturating.
    #[must_use]
    pub fn plus(self, length: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(length.as_millis()).unwrap_or(i64::MAX)))
    }
}

impl fmt::Display for UtcTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(timestamp) => write!(f, "{timestamp:.3}"),
            // Beyond jiff's years -9999 to 9999: only a saturated deadline gets there.
            Err(_) => f.write_str("9999-12-31T23:59:59.999Z"),
        }
    }
}

impl FromStr for UtcTime {
    type Err = jiff::Error;
    fn from_str(text: &str) -> Result<Self, jiff::Error> {
        Ok(Self(text.parse::<jiff::Timestamp>()?.as_millisecond()))
    }
}

impl Serialize for UtcTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for UtcTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// A length of time as it is written in HCL: `90s`, `5m`, `120h`, `1h30m`, `250ms`, `7d`. Whole
/// milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Length(Duration);

/// A text that is no length of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a duration; write it like 90s, 5m, 120h or 1h30m")]
pub struct InvalidLength(String);

impl Length {
    /// From a whole number of seconds.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// From a whole number of hours.
    #[must_use]
    pub const fn from_hours(hours: u64) -> Self {
        Self(Duration::from_secs(hours * 3600))
    }

    /// As the standard library's type.
    #[must_use]
    pub const fn get(self) -> Duration {
        self.0
    }
}

/// The longest length that is taken: 10 years, so that sums with times cannot overflow.
const LONGEST: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

impl FromStr for Length {
    type Err = InvalidLength;

    fn from_str(text: &str) -> Result<Self, InvalidLength> {
        let invalid = || InvalidLength(text.to_owned());
        let mut total_ms: u64 = 0;
        let mut rest = text;
        let mut last_unit_ms = u64::MAX;
        if rest.is_empty() {
            return Err(invalid());
        }
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(invalid)?;
            let number: u64 = rest[..digits].parse().map_err(|_| invalid())?;
            let after = &rest[digits..];
            let unit_end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
            let unit_ms: u64 = match &after[..unit_end] {
                "ms" => 1,
                "s" => 1_000,
                "m" => 60_000,
                "h" => 3_600_000,
                "d" => 86_400_000,
                _ => return Err(invalid()),
            };
            // Each unit once, the larger first: `30m1h` and `5s5s` are slips.
            if unit_ms >= last_unit_ms {
                return Err(invalid());
            }
            last_unit_ms = unit_ms;
            total_ms = number
                .checked_mul(unit_ms)
                .and_then(|ms| total_ms.checked_add(ms))
                .ok_or_else(invalid)?;
            rest = &after[unit_end..];
        }
        let length = Duration::from_millis(total_ms);
        if length > LONGEST { Err(invalid()) } else { Ok(Self(length)) }
    }
}

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.0.as_millis();
        if total == 0 {
            return f.write_str("0s");
        }
        let mut rest = total;
        for (unit_ms, unit) in [(3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")] {
            let number = rest / unit_ms;
            rest %= unit_ms;
            if number > 0 {
                write!(f, "{number}{unit}")?;
            }
        }
        Ok(())
    }
}

impl Serialize for Length {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Length {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::{Length, UtcTime};

    #[test]
    fn lengths_are_read_and_printed() {
        for (text, seconds) in [
            ("90s", 90.0),
            ("5m", 300.0),
            ("120h", 432_000.0),
            ("1h30m", 5_400.0),
            ("250ms", 0.25),
            ("0s", 0.0),
        ] {
            let length: Length = text.parse().expect(text);
            assert!((length.get().as_secs_f64() - seconds).abs() < 1e-9, "{text}");
        }
        assert_eq!("5d".parse::<Length>().expect("days").to_string(), "120h");
        assert_eq!("90s".parse::<Length>().expect("seconds").to_string(), "1m30s");
    }

    #[test]
    fn slips_are_refused() {
        for text in [
            "",
            "5",
            "h",
            "5x",
            "-5s",
            "1.5h",
            "30m1h",
            "5s5s",
            "99999999999999999999h",
            "5 m",
            "200000000h",
        ] {
            assert!(text.parse::<Length>().is_err(), "{text}");
        }
    }

    #[test]
    fn times_are_rfc_3339() {
        let time = UtcTime::from_millis(1_769_850_000_250);
        assert_eq!(time.to_string(), "2026-01-31T09:00:00.250Z");
        assert_eq!(time.to_string().parse::<UtcTime>().expect("its own text"), time);
    }
}
