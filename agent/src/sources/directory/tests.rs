use std::os::unix::fs::symlink;

use nix::{sys::stat::Mode, unistd::mkfifo};
use tempfile::TempDir;

use super::*;

const SOON: Duration = Duration::from_secs(10);

/// A directory that is followed.
struct Followed {
    folder: TempDir,
    told: Receiver<News>,
    _running: Running,
}

impl Followed {
    /// `services.d` in a folder, with these files; and what it has at first.
    fn new(files: &[(&str, &str)]) -> (Self, News) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("services.d");
        fs::create_dir(&path).unwrap();
        files.iter().for_each(|(name, text)| fs::write(path.join(name), text).unwrap());
        let (sender, told) = channel();
        let tell = move |news| sender.send(news).is_ok();
        let (running, first) = open(&path, &Faults::default(), tell).unwrap();
        running.begin();
        (Self { folder, told, _running: running }, first)
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("services.d")
    }

    /// Puts a file in place as programs do that want it to be read as a whole.
    fn put(&self, name: &str, text: &str) {
        let fresh = self.path().join(format!(".{name}.new"));
        fs::write(&fresh, text).unwrap();
        fs::rename(fresh, self.path().join(name)).unwrap();
    }

    fn next(&self) -> News {
        self.told.recv_timeout(SOON).expect("something is told")
    }

    fn is_silent(&self) -> bool {
        self.told.recv_timeout(Duration::from_millis(300)).is_err()
    }
}

fn service(name: &str) -> String {
    format!("[[service]]\nname = '{name}'\nvip = '10.96.0.1:80/tcp'\nbackends = []\n")
}

/// A file, and the names of its services or what is wrong with it; `None` where it has gone.
type Seen = (String, Option<Result<Vec<String>, String>>);

fn seen(news: News) -> Vec<Seen> {
    let parts: Vec<(PartName, Option<Part>)> = match news {
        News::Snapshot(parts) => parts.into_iter().map(|(name, part)| (name, Some(part))).collect(),
        News::Changes(parts) => parts,
        News::Lost(why) => panic!("lost: {why}"),
    };
    let names = |part: Part| match part {
        Ok(placed) => Ok(placed.into_iter().map(|placed| placed.service.name).collect()),
        Err(problems) => Err(problems[0].to_string()),
    };
    let file = |name: PartName| Path::new(&*name).file_name().unwrap().to_string_lossy().into_owned();
    parts.into_iter().map(|(name, part)| (file(name), part.map(names))).collect()
}

fn one(file: &str, names: &[&str]) -> Vec<Seen> {
    vec![(file.to_owned(), Some(Ok(names.iter().map(ToString::to_string).collect())))]
}

#[test]
fn a_directory_is_read_as_a_whole_and_then_followed_file_by_file() {
    let yaml = "service:\n- name: db\n  vip: 10.96.0.2:80/tcp\n  backends: []\n";
    let (followed, first) = Followed::new(&[
        ("a.toml", &service("web")),
        ("b.yaml", yaml),
        ("c.toml~", "x"),
        (".d.toml", "x"),
        ("e.txt", "x"),
    ]);
    assert!(matches!(first, News::Snapshot(_)));
    assert_eq!(seen(first), [one("a.toml", &["web"]), one("b.yaml", &["db"])].concat());
    for name in ["first", "second", "third"] {
        followed.put("a.toml", &service(name));
        assert_eq!(seen(followed.next()), one("a.toml", &[name]));
    }
    fs::write(followed.path().join("a.toml"), service("in-place")).unwrap();
    assert_eq!(seen(followed.next()), one("a.toml", &["in-place"]));
    fs::remove_file(followed.path().join("a.toml")).unwrap();
    assert_eq!(seen(followed.next()), [("a.toml".to_owned(), None)]);
    fs::write(followed.path().join("e.txt"), "y").unwrap();
    assert!(followed.is_silent(), "other files are none of services, and reading is no change");
}

#[test]
fn what_came_between_opening_and_beginning_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let (sender, told) = channel();
    let (running, first) =
        open(folder.path(), &Faults::default(), move |news| sender.send(news).is_ok()).unwrap();
    assert_eq!(seen(first), []);
    fs::write(folder.path().join("a.toml"), service("web")).unwrap();
    assert!(told.recv_timeout(Duration::from_millis(200)).is_err());
    running.begin();
    assert_eq!(seen(told.recv_timeout(SOON).unwrap()), one("a.toml", &["web"]));
    drop(running);
    assert!(told.recv_timeout(SOON).is_err(), "its thread has ended");
}

#[test]
fn a_directory_that_goes_is_lost_and_begins_anew_when_it_is_back() {
    let (followed, _) = Followed::new(&[("a.toml", &service("web"))]);
    let (path, aside) = (followed.path(), followed.folder.path().join("aside"));
    fs::rename(&path, &aside).unwrap();
    assert!(matches!(followed.next(), News::Lost(why) if why.contains("No such file or directory")));
    fs::write(&path, "").unwrap();
    assert!(matches!(followed.next(), News::Lost(why) if why.contains("not a directory")));
    fs::remove_file(&path).unwrap();
    assert!(matches!(followed.next(), News::Lost(_)));
    fs::rename(&aside, &path).unwrap();
    let again = followed.next();
    assert!(matches!(again, News::Snapshot(_)));
    assert_eq!(seen(again), one("a.toml", &["web"]));
    followed.put("a.toml", &service("db"));
    assert_eq!(seen(followed.next()), one("a.toml", &["db"]));
}

#[test]
fn a_directory_in_the_place_of_another_is_read_as_a_whole() {
    let (followed, _) = Followed::new(&[("a.toml", &service("web"))]);
    let other = followed.folder.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("b.toml"), service("db")).unwrap();
    let path = followed.path();
    fs::rename(&path, followed.folder.path().join("aside")).unwrap();
    fs::rename(&other, &path).unwrap();
    let mut news = followed.next();
    if matches!(news, News::Lost(_)) {
        news = followed.next();
    }
    assert!(matches!(news, News::Snapshot(_)));
    assert_eq!(seen(news), one("b.toml", &["db"]));
}

#[test]
fn links_that_are_switched_behind_the_files_are_followed() {
    let (followed, _) = Followed::new(&[]);
    let path = followed.path();
    for (version, name) in [("..1", "web"), ("..2", "db")] {
        fs::create_dir(path.join(version)).unwrap();
        fs::write(path.join(version).join("a.toml"), service(name)).unwrap();
        symlink(version, path.join("..new")).unwrap();
        fs::rename(path.join("..new"), path.join("..data")).unwrap();
        if name == "web" {
            symlink("..data/a.toml", path.join("a.toml")).unwrap();
        }
        assert_eq!(seen(followed.next()), one("a.toml", &[name]));
    }
}

#[test]
fn what_is_no_text_of_a_file_is_wrong_and_not_gone() {
    let (followed, _) = Followed::new(&[]);
    let path = followed.path();
    let told = |name: &str| {
        let seen = seen(followed.next());
        assert_eq!(seen.len(), 1, "{seen:?}");
        assert_eq!(seen[0].0, name);
        seen[0].1.clone().expect("it is there").expect_err("it is wrong")
    };
    mkfifo(&path.join("pipe.toml"), Mode::S_IRUSR).unwrap();
    assert!(told("pipe.toml").contains("it is no file"));
    symlink("nowhere", path.join("link.toml")).unwrap();
    let changes = seen(followed.next());
    let link = changes.iter().find(|(name, _)| name == "link.toml").expect("it is told");
    assert!(matches!(&link.1, Some(Err(why)) if why.contains("No such file")), "{link:?}");
}
