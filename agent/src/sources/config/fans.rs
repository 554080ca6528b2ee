//! The file of fans, `/etc/fanlight/fans`: one fan a line, `OVERLAY UNDERLAY FLAGS...`, `#` comments.

use super::{
    check,
    operands::{self, FanLine},
    problem::Problem,
};

/// One line of the file that is no comment and not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileLine {
    /// Its number; the first line is 1.
    pub number: usize,
    /// The fan, or what is wrong with the line. One bad line leaves the others as they are.
    pub fan: Result<FanLine, Problem>,
}

/// Parses the text of the file; every line stands for itself, except that fans must not overlap earlier ones.
pub fn parse(text: &str) -> Vec<FileLine> {
    let mut lines: Vec<FileLine> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let words: Vec<&str> = line.split('#').next().unwrap_or_default().split_whitespace().collect();
        if words.is_empty() {
            continue;
        }
        let fan = operands::parse_fan(&words).map_err(|error| error.to_string()).and_then(|fan| {
            if fan.off {
                return Ok(fan);
            }
            check::check_fan(&fan.spec).map_err(|error| error.to_string())?;
            match wanted(&lines).find_map(|(_, other)| check::conflict(&other.spec, &fan.spec)) {
                Some(why) => Err(format!("{why}; {}", check::APART)),
                None => Ok(FanLine { auto: true, ..fan }),
            }
        });
        let fan = fan.map_err(|message| Problem { line: Some(index + 1), key: String::new(), message });
        lines.push(FileLine { number: index + 1, fan });
    }
    lines
}

/// The lines whose fan is wanted, each with its number.
pub fn wanted(lines: &[FileLine]) -> impl Iterator<Item = (usize, &FanLine)> {
    lines
        .iter()
        .filter_map(|line| line.fan.as_ref().ok().filter(|fan| !fan.off).map(|fan| (line.number, fan)))
}

#[cfg(test)]
mod tests;
