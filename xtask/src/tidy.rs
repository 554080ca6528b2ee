//! Rules that no compiler checks, as tests.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// What a file may have, its tests not counted.
const LINES: usize = 400;

/// Where unsafe code may stand; everything else is built on these.
const UNSAFE: [&str; 6] = [
    "dataplane-common/src/codegen",
    "dataplane-common/src/packet",
    "dataplane-common/src/wire",
    "dataplane-ebpf/",
    "agent/src/kernel/",
    "tests/",
];

pub(crate) struct File {
    pub(crate) name: String,
    text: String,
}

impl File {
    pub(crate) fn is_rust(&self) -> bool {
        self.name.ends_with(".rs")
    }

    /// Files that are tests altogether.
    pub(crate) fn is_test(&self) -> bool {
        self.name.ends_with("/tests.rs") || self.name.contains("/tests/")
    }

    /// What stands before the module of tests.
    pub(crate) fn code(&self) -> impl Iterator<Item = &str> {
        self.text.lines().take_while(|line| *line != "#[cfg(test)]")
    }
}

/// Every text file of the project.
pub(crate) fn files() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace around the package");
    let (mut files, mut open) = (Vec::new(), vec![root.to_path_buf()]);
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).expect("a readable directory").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if [".git", "target"].contains(&name.as_str()) {
                continue;
            }
            if entry.file_type().expect("a file type").is_dir() {
                open.push(entry.path());
            } else if let Ok(text) = fs::read_to_string(entry.path()) {
                files.push(File { name: relative(root, entry.path()), text });
            }
        }
    }
    assert!(files.len() > 20, "the project was not found at {}", root.display());
    files
}

fn relative(root: &Path, path: PathBuf) -> String {
    path.strip_prefix(root).expect("a path below the root").to_string_lossy().into_owned()
}

/// Fails with every place that breaks a rule.
#[track_caller]
pub(crate) fn none(rule: &str, broken: Vec<String>) {
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}

fn lines_where(file: &File, wrong: impl Fn(&str) -> bool) -> Vec<String> {
    let numbered = file.text.lines().zip(1..).filter(|(line, _)| wrong(line));
    numbered.map(|(line, number)| format!("{}:{number}: {}", file.name, line.trim())).collect()
}

#[test]
fn no_file_outgrows_its_reader() {
    let files = files();
    let long = files.iter().filter(|file| file.is_rust() && !file.is_test() && file.code().count() > LINES);
    none(
        "split what is too long",
        long.map(|file| format!("{}: {}", file.name, file.code().count())).collect(),
    );
}

#[test]
fn no_line_ends_in_white_space() {
    let checked = |file: &&File| ["rs", "toml", "sh", "md", "run"].iter().any(|end| file.name.ends_with(end));
    let files = files();
    let lines =
        files.iter().filter(checked).flat_map(|file| lines_where(file, |line| line != line.trim_end()));
    none("white space at the end of a line", lines.collect());
}

#[test]
fn nothing_is_put_off_in_a_comment() {
    // In parts, so that this file does not break its own rule.
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X "), concat!("to", "do!(")];
    let files = files();
    let marked = |line: &str| marks.iter().any(|mark| line.contains(mark));
    let lines = files.iter().filter(|file| file.is_rust()).flat_map(|file| lines_where(file, marked));
    none("unfinished", lines.collect());
}

#[test]
fn nothing_names_a_place_of_one_machine() {
    let places =
        [concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/wo", "rk/"), concat!("/Use", "rs/")];
    let files = files();
    let named = |line: &str| places.iter().any(|place| line.contains(place));
    none("a path of one machine", files.iter().flat_map(|file| lines_where(file, named)).collect());
}

#[test]
fn every_package_has_a_licence() {
    let files = files();
    let packages =
        files.iter().filter(|file| file.name.ends_with("Cargo.toml") && file.text.contains("[package]"));
    let unlicensed = packages.filter(|file| !file.text.contains("\nlicense"));
    none("no licence", unlicensed.map(|file| file.name.clone()).collect());
}

#[test]
fn unsafe_code_stays_where_it_is_looked_for() {
    let starts = ["{", "fn ", "impl ", "extern "].map(|after| format!("{} {after}", concat!("un", "safe")));
    let has =
        |line: &str| !line.trim_start().starts_with("//") && starts.iter().any(|start| line.contains(start));
    let files = files();
    let outside = |file: &&File| file.is_rust() && !UNSAFE.iter().any(|place| file.name.starts_with(place));
    none(
        "move it behind a safe function",
        files.iter().filter(outside).flat_map(|file| lines_where(file, has)).collect(),
    );
}

#[test]
fn the_readme_is_read_in_one_sitting() {
    let files = files();
    let readme = files.iter().find(|file| file.name == "README.md").expect("a README");
    let lines = readme.text.lines().count();
    assert!(lines <= 160, "README.md has {lines} lines; move what is not for the first hour to docs/");
}

#[test]
fn pages_that_documents_name_exist() {
    let files = files();
    let is_document = |file: &&File| file.name.ends_with(".md");
    let mut missing = Vec::new();
    for file in files.iter().filter(is_document) {
        let named = file.text.split('`').filter(|word| word.ends_with(".md") && !word.contains(' '));
        let absent = named.filter(|word| !files.iter().any(|file| file.name == *word));
        missing.extend(absent.map(|word| format!("{}: {word}", file.name)));
    }
    none("a page that is not there", missing);
}

#[test]
fn the_agent_starts_programs_in_one_place_where_each_has_a_deadline() {
    let starts =
        [concat!("Command::", "new("), concat!("Command", "::output"), concat!("process::", "Command")];
    let files = files();
    let agent = |file: &&File| {
        file.name.starts_with("agent/src/")
            && !file.is_test()
            && !file.name.starts_with("agent/src/kernel/child")
    };
    let lines = files.iter().filter(agent).flat_map(|file| {
        let code = file.code().zip(1..);
        let starting = code.filter(|(line, _)| starts.iter().any(|start| line.contains(start)));
        starting.map(|(line, number)| format!("{}:{number}: {}", file.name, line.trim())).collect::<Vec<_>>()
    });
    none("use kernel::child", lines.collect());
}
