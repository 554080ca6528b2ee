//! Lengths of time as text: a number and its unit.

use std::time::Duration;

use control::model::quoted;

const UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];

/// A length of time such as `500ms`, `2s`, `5m` or `3h`.
///
/// # Errors
/// It is none.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let error = || {
        format!(
            "{} is no length of time; write a whole number and ms, s, m or h, such as \"2s\"",
            quoted(text)
        )
    };
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_none| error())?;
    let (_, length) = UNITS.into_iter().find(|(name, _)| *name == unit).ok_or_else(error)?;
    number.checked_mul(length).map(Duration::from_millis).ok_or_else(error)
}

/// As it is written.
pub(super) fn shown(length: Duration) -> String {
    let ms = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
    let whole = UNITS.into_iter().rev().find(|(_, unit)| ms >= *unit && ms.is_multiple_of(*unit));
    let (name, unit) = whole.unwrap_or(UNITS[0]);
    format!("{}{name}", ms / unit)
}

/// A length of time from `least` to `most`.
///
/// # Errors
/// It is none, or beyond these.
pub(super) fn within(text: &str, least: Duration, most: Duration) -> Result<Duration, String> {
    let length = parse(text)?;
    if (least..=most).contains(&length) {
        return Ok(length);
    }
    Err(format!("{} is out of range; use {} to {}", quoted(text), shown(least), shown(most)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_a_number_and_a_unit() {
        for (text, ms) in [("0s", 0), ("500ms", 500), ("2s", 2_000), ("5m", 300_000), ("3h", 10_800_000)] {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in
            ["", "s", "5", "5 s", "-5s", "1.5s", "5d", "99999999999999999999s", "18446744073709551615h"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
        let shown: Vec<String> = [0, 500, 1_500, 60_000].map(|ms| shown(Duration::from_millis(ms))).into();
        assert_eq!(shown, ["0ms", "500ms", "1500ms", "1m"]);
    }
}
