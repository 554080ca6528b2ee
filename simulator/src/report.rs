//! What a scenario found.

use std::{fmt, time::Duration};

/// Figures in the order in which they were found, and which of them are beyond their bounds.
#[derive(Debug, Default)]
pub struct Report {
    lines: Vec<String>,
    failures: usize,
}

impl Report {
    /// A figure without a bound.
    pub fn note(&mut self, what: &str, value: impl fmt::Display) {
        self.lines.push(format!("     {what}: {value}"));
    }

    /// A figure and whether it is within its bound.
    pub fn check(&mut self, what: &str, value: impl fmt::Display, bound: &str, holds: bool) {
        let mark = if holds { "ok  " } else { "FAIL" };
        self.failures += usize::from(!holds);
        self.lines.push(format!("{mark} {what}: {value} (bound: {bound})"));
    }

    /// A time and the longest that it may be; none: it never happened.
    pub fn time(&mut self, what: &str, time: Option<Duration>, longest: Duration) {
        let value = time.map_or_else(|| "never".to_owned(), |time| format!("{:.2} s", time.as_secs_f64()));
        let holds = time.is_some_and(|time| time <= longest);
        self.check(what, value, &format!("{:.2} s", longest.as_secs_f64()), holds);
    }

    pub fn has_failed(&self) -> bool {
        self.failures > 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(formatter, "  {line}"))
    }
}

/// The value that a part of all is not above.
pub fn quantile<T: Copy + Ord>(values: &[T], part: f64) -> Option<T> {
    let mut values = values.to_vec();
    values.sort_unstable();
    let place = ((values.len() as f64 * part).ceil() as usize).clamp(1, values.len().max(1)) - 1;
    values.get(place).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_one_of_the_values() {
        assert_eq!(quantile(&[3, 1, 2], 0.5), Some(2));
        assert_eq!(quantile(&[3, 1, 2], 0.9), Some(3));
        assert_eq!(quantile(&[1], 0.0), Some(1));
        assert_eq!(quantile::<u8>(&[], 0.5), None);
    }

    #[test]
    fn a_figure_beyond_its_bound_fails_the_report() {
        let mut report = Report::default();
        report.time("within", Some(Duration::from_secs(1)), Duration::from_secs(1));
        assert!(!report.has_failed());
        report.time("never", None, Duration::from_secs(1));
        assert!(report.has_failed() && report.to_string().contains("FAIL never: never (bound: 1.00 s)"));
    }
}
