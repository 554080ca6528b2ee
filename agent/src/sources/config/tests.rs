use std::{fs, path::PathBuf};

use tempfile::TempDir;

use super::*;

struct Files {
    _directory: TempDir,
    config: PathBuf,
    fans: PathBuf,
}

fn files(config: &str, fans: &str) -> Files {
    let directory = tempfile::tempdir().unwrap();
    let (config_path, fans_path) = (directory.path().join("fanlight.toml"), directory.path().join("fans"));
    fs::write(&config_path, config).unwrap();
    fs::write(&fans_path, fans).unwrap();
    Files { _directory: directory, config: config_path, fans: fans_path }
}

fn problems(config: &str, fans: &str) -> Vec<String> {
    let files = files(config, fans);
    let lines = load(&files.config, &files.fans).map_or_else(|error| error.lines(), |_| Vec::new());
    let directory = files.config.parent().unwrap().display().to_string();
    lines.into_iter().map(|line| line.replace(&directory, "/etc/fanlight")).collect()
}

#[test]
fn the_same_fan_in_both_files_counts_once() {
    let files = files("[[fan]]\noverlay = '250'\nunderlay = 'eth0/16'\n", "250 eth0/16\n251 eth0/16\n");
    let fans = load(&files.config, &files.fans).unwrap().fans();
    let origins: Vec<_> = fans.iter().map(|(spec, origin)| (spec.overlay.to_string(), *origin)).collect();
    assert_eq!(
        origins,
        [("250.0.0.0/8".to_owned(), Origin::Config), ("251.0.0.0/8".to_owned(), Origin::File)]
    );
}

#[test]
fn the_same_fan_with_other_values_is_an_error_that_names_both_places() {
    assert_eq!(
        problems("[[fan]]\noverlay = '250'\nunderlay = 'eth0/16'\n", "\n250 eth0/16 egress drop\n"),
        ["/etc/fanlight/fans:2: fan 250.0.0.0/8: egress is drop instead of masquerade \
         (/etc/fanlight/fanlight.toml:2); change or remove one of them"]
    );
}

#[test]
fn overlapping_fans_of_both_files_are_an_error() {
    assert_eq!(
        problems("[[fan]]\noverlay = '250'\n", "250.1.0.0/16 eth0/24\n"),
        [
            "/etc/fanlight/fans:1: overlay 250.1.0.0/16 overlaps 250.0.0.0/8 (/etc/fanlight/fanlight.toml:2); change or remove one of them"
        ]
    );
}

#[test]
fn a_bad_line_of_fans_is_kept_for_its_own_report() {
    let files = files("", "bad\n250 eth0\n");
    let sources = load(&files.config, &files.fans).unwrap();
    assert_eq!(sources.fans().len(), 1);
    assert!(sources.lines[0].fan.is_err());
}

#[test]
fn a_missing_file_is_an_error_only_where_it_was_named() {
    let files = files("", "");
    let missing = files.config.with_file_name("other.toml");
    let error = load(&missing, &files.fans).unwrap_err();
    assert_eq!(error.lines(), [format!("{}: no such file; create it or name another", missing.display())]);
    fs::remove_file(&files.fans).unwrap();
    assert_eq!(load(&files.config, &files.fans), Ok(Sources::default()));
}

#[test]
fn the_nearest_word_is_suggested_and_a_far_one_is_not() {
    assert_eq!(suggest("overlap", &["overlay", "underlay"]).as_deref(), Some("did you mean 'overlay'?"));
    assert_eq!(suggest("zzz", &["overlay", "underlay"]), None);
}

#[test]
fn the_page_of_the_configuration_has_every_key_and_no_other() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let page = fs::read_to_string(path).expect("docs/configuration.md");
    let rows = page.lines().skip_while(|line| !line.starts_with("| table |")).skip(2);
    let cells = rows.take_while(|line| line.starts_with('|')).map(|row| {
        let mut cells = row.split(" | ").map(|cell| cell.trim_matches(['|', ' ']).to_owned());
        (cells.next().expect("a table"), cells.next().expect("a key"))
    });
    let mut described: Vec<_> = cells.collect();
    let tables = file::TABLES.into_iter().chain(service::TABLES);
    let known = tables.flat_map(|(table, keys)| keys.known.iter().map(move |key| (table, key)));
    let mut known: Vec<_> = known.map(|(table, key)| (table.to_owned(), format!("`{key}`"))).collect();
    described.sort_unstable();
    known.sort_unstable();
    assert_eq!(described, known);
}
