//! Which tests run in which guests: said at each test.
//!
//! `//@ guest` above a test: it can run in a guest, and does on every kernel with `cargo xtask ci --full`.
//! `//@ guest: 6.1, 6.12`: it runs on these kernels each time besides. In a file before its first item: the same for
//! all its tests that say nothing themselves.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context, Result, bail};

/// The kernels that are tested in guests.
pub(crate) const KERNELS: [&str; 2] = ["6.1", "6.12"];

/// Where the tests are.
const TESTS: &str = "tests/tests/integration";

const MARK: &str = "//@ guest";

/// Kernels on which a test runs each time; none: only with `--full`.
type Kernels = BTreeSet<String>;

/// Tests that run in guests.
#[derive(Debug, Default)]
pub(crate) struct Tags(BTreeMap<String, Kernels>);

impl Tags {
    /// Reads the tests of a checkout.
    pub(crate) fn read(root: &Path) -> Result<Self> {
        let (mut tags, mut open) = (Self::default(), vec![root.join(TESTS)]);
        while let Some(directory) = open.pop() {
            let entries = fs::read_dir(&directory);
            for entry in entries.with_context(|| format!("reading {}", directory.display()))? {
                let path = entry?.path();
                if path.is_dir() {
                    open.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let text =
                        fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
                    let module = module(path.strip_prefix(root.join(TESTS)).unwrap_or(&path));
                    tags.add(&module, &text).with_context(|| path.display().to_string())?;
                }
            }
        }
        Ok(tags)
    }

    fn add(&mut self, module: &str, text: &str) -> Result<()> {
        let mut lines = (1..).zip(text.lines().map(str::trim)).peekable();
        let mut of_file: Option<Kernels> = None;
        let (mut own, mut items) = (None, false);
        while let Some((number, line)) = lines.next() {
            if line.starts_with(MARK) {
                let kernels = kernels(line).with_context(|| format!("line {number}"))?;
                match lines.peek() {
                    Some((_, "#[test]")) => own = Some(kernels),
                    _ if !items => of_file = Some(kernels),
                    _ => bail!("line {number}: {line}: no #[test] follows"),
                }
            } else if line == "#[test]" {
                let name = lines.find_map(|(_, line)| function(line));
                let name = name.with_context(|| format!("line {number}: no function follows #[test]"))?;
                if let Some(kernels) = own.take().or_else(|| of_file.clone()) {
                    self.0.insert(format!("{module}{name}"), kernels);
                }
            }
            items |= !line.is_empty() && !line.starts_with("//");
        }
        Ok(())
    }

    /// Tests of a kernel; `full`: all that can run in a guest.
    pub(crate) fn of(&self, series: &str, full: bool) -> Vec<String> {
        let chosen = self.0.iter().filter(|(_, kernels)| full || kernels.contains(series));
        chosen.map(|(name, _)| name.clone()).collect()
    }

    /// Fails with the tags whose tests the binary does not have.
    pub(crate) fn check(&self, tests: &[String]) -> Result<()> {
        let unknown: Vec<_> =
            self.0.keys().filter(|name| !tests.contains(name)).map(String::as_str).collect();
        if !unknown.is_empty() {
            bail!("`{MARK}` stands at what the test binary does not have: {}", unknown.join(", "));
        }
        Ok(())
    }
}

/// `replay/agreement.rs` is `replay::agreement::`, `main.rs` is the root.
fn module(path: &Path) -> String {
    let parts = path.with_extension("");
    let parts =
        parts.iter().map(|part| part.to_string_lossy()).filter(|part| part != "main" && part != "mod");
    parts.map(|part| format!("{part}::")).collect()
}

fn kernels(line: &str) -> Result<Kernels> {
    let list = match line.strip_prefix(MARK) {
        Some("") => return Ok(Kernels::new()),
        Some(rest) => {
            rest.strip_prefix(": ").with_context(|| format!("{line}: `{MARK}: KERNELS` is meant"))?
        }
        None => line,
    };
    let names: Kernels = list.split(", ").map(str::to_owned).collect();
    match names.iter().find(|name| !KERNELS.contains(&name.as_str())) {
        Some(unknown) => bail!("{line}: {unknown} is none of the tested kernels: {}", KERNELS.join(", ")),
        None => Ok(names),
    }
}

/// The name in `fn name(`, `async fn name(`.
fn function(line: &str) -> Option<&str> {
    let (before, after) = line.split_once("fn ")?;
    if line.starts_with("//") || line.starts_with("#[") || before.contains('"') {
        return None;
    }
    after.split(['(', '<']).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(text: &str) -> Result<Tags> {
        let mut tags = Tags::default();
        tags.add("vip::", text)?;
        Ok(tags)
    }

    #[test]
    fn a_test_runs_on_the_kernels_that_stand_above_it() {
        let text = "//! Area.\n\nuse a::b;\n\n//@ guest: 6.1, 6.12\n#[test]\nfn one() {}\n\n//@ guest\n#[test]\n\
                    #[should_panic]\nfn two() {}\n\n#[test]\nfn three() {}\n";
        let tags = tags(text).unwrap();
        assert_eq!(tags.of("6.1", false), ["vip::one"]);
        assert_eq!(tags.of("6.12", true), ["vip::one", "vip::two"]);
    }

    #[test]
    fn what_stands_before_a_files_items_is_for_all_tests_without_a_tag() {
        let text = "//! Area.\n//@ guest\n\nuse a::b;\n\n#[test]\nfn one() {}\n\n//@ guest: 6.12\n#[test]\nfn two() {}\n";
        let tags = tags(text).unwrap();
        assert!(tags.of("6.1", false).is_empty());
        assert_eq!(tags.of("6.12", false), ["vip::two"]);
        assert_eq!(tags.of("6.1", true), ["vip::one", "vip::two"]);
    }

    #[test]
    fn a_tag_that_means_nothing_is_an_error() {
        let unknown = tags("//@ guest: 5.4\n#[test]\nfn one() {}\n").unwrap_err();
        assert!(format!("{unknown:#}").contains("5.4 is none of the tested kernels"), "{unknown:#}");
        assert!(tags("use a;\n//@ guest\nfn helper() {}\n").is_err());
        let tags = tags("//@ guest\n#[test]\nfn one() {}\n").unwrap();
        assert!(tags.check(&["vip::one".into()]).is_ok());
        assert!(tags.check(&["vip::other".into()]).unwrap_err().to_string().ends_with("vip::one"));
    }

    #[test]
    fn a_files_path_is_its_module() {
        assert_eq!(module(Path::new("replay/agreement.rs")), "replay::agreement::");
        assert_eq!(module(Path::new("main.rs")), "");
    }

    #[test]
    fn every_tested_kernel_has_tests() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace around the package");
        let tags = Tags::read(root).unwrap();
        for series in KERNELS {
            assert!(tags.of(series, false).len() >= 10, "{series}: {:?}", tags.of(series, false));
        }
    }
}
