//! `[cluster]`: what this node is told of its cluster.

use std::{
    fmt, fs,
    io::{self, Read as _},
    net::{Ipv4Addr, SocketAddrV4},
    ops::Range,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use control::{
    cluster::keyring::{Keyring, KeyringError},
    model::quoted,
};

use super::{
    problem::Problems,
    section::{Keys, Section},
};

pub(super) const CLUSTER: Keys =
    Keys { known: &["name", "listen", "advertise", "join", "keys", "data", "insecure"], later: &[] };

/// Where members listen unless said otherwise.
const LISTEN: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 7481);
/// Where the node keeps its key unless said otherwise.
const DATA: &str = "/var/lib/fanlight";
/// Longest name of a cluster.
const MAX_NAME: usize = 63;
/// Most addresses to join by.
const MAX_SEEDS: usize = 64;
/// Longest host name (RFC 1035, section 2.3.4).
const MAX_HOST: usize = 253;
/// Most bytes of a file of keys.
const MAX_KEY_FILE: u64 = 64 * 1024;
/// How keys are made.
const MAKE_KEY: &str = "`head -c 32 /dev/urandom | base64` makes a key";

/// `[cluster]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterConfig {
    /// The cluster's name. Nodes of other names are no members.
    pub name: String,
    /// Where datagrams and streams arrive.
    pub listen: SocketAddrV4,
    /// Where other members send them; the uplink's address and the port of `listen` when absent.
    pub advertise: Option<SocketAddrV4>,
    /// Members to be found at first: `ADDRESS:PORT` or `NAME:PORT`.
    pub join: Vec<String>,
    /// The file of keys.
    pub key_file: Option<PathBuf>,
    /// What is in it.
    pub keys: Option<SecretKeys>,
    /// Folder of the node's key.
    pub data: PathBuf,
    /// Without keys, beyond loopback all the same.
    pub insecure: bool,
}

/// The text of a file of keys that a [`Keyring`] can be made of. `Debug` shows none of it.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretKeys(Arc<str>);

impl SecretKeys {
    /// # Errors
    /// The text is no file of keys.
    pub fn new(text: &str) -> Result<Self, KeyringError> {
        Keyring::parse(text).map(|_ring| Self(text.into()))
    }

    /// The keys in their order.
    ///
    /// # Errors
    /// None: the text was read before.
    pub fn ring(&self) -> Result<Keyring, KeyringError> {
        Keyring::parse(&self.0)
    }
}

impl fmt::Debug for SecretKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SecretKeys")
    }
}

/// Reads the table, as far as it can be read; the file of keys is still to be read.
pub(super) fn cluster(section: &Section<'_, '_>, problems: &mut Problems<'_>) -> Option<ClusterConfig> {
    section.check_keys(&CLUSTER, problems);
    if section.get("name").is_none() {
        problems.add(
            &section.span,
            section.key("name"),
            "is missing; give the cluster a name such as \"prod\"",
        );
    }
    let name = section.parsed("name", name, problems);
    let listen = section.parsed("listen", listen, problems).unwrap_or(LISTEN);
    let advertise = section.parsed("advertise", advertise, problems);
    // A switch that can't be read says nothing of keys.
    let insecure = section.switch("insecure", problems).unwrap_or(section.get("insecure").is_some());
    let key_file =
        section.parsed("keys", |text| absolute(text, "a file", "/etc/fanlight/cluster.keys"), problems);
    let data = section.parsed("data", |text| absolute(text, "a folder", DATA), problems);
    let config = ClusterConfig {
        name: name?,
        listen,
        advertise,
        join: seeds(section, problems),
        keys: None,
        data: data.unwrap_or_else(|| PathBuf::from(DATA)),
        insecure,
        key_file,
    };
    check_keys(&config, section, problems);
    Some(config)
}

/// Keys are needed beyond loopback, and contradict `insecure`.
fn check_keys(config: &ClusterConfig, section: &Section<'_, '_>, problems: &mut Problems<'_>) {
    let has_keys = section.get("keys").is_some();
    if has_keys && config.insecure {
        let why = "is true beside keys; remove one of them";
        problems.add(&section.place("insecure"), section.key("insecure"), why);
    }
    if !has_keys && !config.insecure && !config.listen.ip().is_loopback() {
        let why = format!(
            "is missing, and {} is beyond loopback; name a file of keys ({MAKE_KEY}), listen on 127.0.0.1, or set \
             insecure = true",
            config.listen
        );
        problems.add(&section.span, section.key("keys"), why);
    }
}

fn name(text: &str) -> Result<String, String> {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if !text.is_empty() && text.len() <= MAX_NAME && text.bytes().all(valid) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "{} is no name of a cluster; use 1 to {MAX_NAME} letters, digits, '-', '_' and '.'",
        quoted(text)
    ))
}

fn address(text: &str) -> Result<SocketAddrV4, String> {
    let parsed: Option<SocketAddrV4> = text.parse().ok().filter(|address: &SocketAddrV4| address.port() != 0);
    parsed.ok_or_else(|| {
        format!("{} is no IPv4 ADDRESS:PORT; write one such as 172.30.0.28:7481", quoted(text))
    })
}

fn listen(text: &str) -> Result<SocketAddrV4, String> {
    let listen = address(text)?;
    if listen.ip().is_multicast() || listen.ip().is_broadcast() {
        return Err(format!(
            "{listen} is no address of one host; use 0.0.0.0:{}, or one of its own",
            listen.port()
        ));
    }
    Ok(listen)
}

fn advertise(text: &str) -> Result<SocketAddrV4, String> {
    let advertise = listen(text)?;
    if advertise.ip().is_unspecified() {
        return Err(format!(
            "{advertise} is no address that members can send to; use the node's own, or leave it out"
        ));
    }
    Ok(advertise)
}

fn absolute(text: &str, what: &str, example: &str) -> Result<PathBuf, String> {
    if text.starts_with('/') && !text.contains('\0') {
        return Ok(PathBuf::from(text));
    }
    Err(format!("{} is no path of {what} from the root on; write one such as {example}", quoted(text)))
}

fn seeds(section: &Section<'_, '_>, problems: &mut Problems<'_>) -> Vec<String> {
    let mut seeds = Vec::new();
    let mut last: Option<Range<usize>> = None;
    for (text, span) in section.strings("join", problems) {
        match seed(&text) {
            Ok(()) => seeds.push(text),
            Err(why) => problems.add(&span, section.key("join"), why),
        }
        last = Some(span);
    }
    if let Some(span) = last.filter(|_| seeds.len() > MAX_SEEDS) {
        problems.add(
            &span,
            section.key("join"),
            format!("more than {MAX_SEEDS} addresses; any living member does"),
        );
    }
    seeds
}

fn seed(text: &str) -> Result<(), String> {
    let parts = text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    let wrong =
        || format!("{} is no ADDRESS:PORT or NAME:PORT; write one such as 172.30.0.27:7481", quoted(text));
    let (host, port) = parts.ok_or_else(wrong)?;
    if host.parse::<Ipv4Addr>().is_ok_and(|address| !address.is_unspecified() && !address.is_multicast())
        && port != 0
    {
        return Ok(());
    }
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    // What ends in a number is meant as an address (RFC 1123, section 2.1).
    let is_name = host.bytes().all(valid) && !host.rsplit('.').next().is_some_and(is_number);
    if !host.is_empty() && host.len() <= MAX_HOST && is_name && port != 0 { Ok(()) } else { Err(wrong()) }
}

fn is_number(label: &str) -> bool {
    !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_digit())
}

/// Reads a file of keys. The message of an error names the file, and never shows what is in it.
pub(super) fn read_keys(path: &Path) -> Result<SecretKeys, String> {
    let failed =
        |error: io::Error| format!("{}: {error}; put one key a line in it: {MAKE_KEY}", path.display());
    let file = fs::File::open(path).map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    let mode = meta.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        let path = path.display();
        return Err(format!(
            "{path} has mode {mode:04o}, which lets others than its owner at the keys; chmod 600 {path}"
        ));
    }
    let mut text = String::new();
    let read = file.take(MAX_KEY_FILE + 1).read_to_string(&mut text).map_err(failed)?;
    if read as u64 > MAX_KEY_FILE {
        return Err(format!(
            "{} has more than {} KiB; put only keys in it",
            path.display(),
            MAX_KEY_FILE >> 10
        ));
    }
    SecretKeys::new(&text).map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

    fn key_file(text: &str, mode: u32) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cluster.keys");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (folder, path)
    }

    #[test]
    fn a_file_of_keys_is_its_owners_alone() {
        let (_folder, path) = key_file(&format!("# first\n{KEY}\n"), 0o600);
        assert!(read_keys(&path).unwrap().ring().is_ok());
        for mode in [0o640, 0o604, 0o620] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = read_keys(&path).unwrap_err();
            assert!(error.contains(&format!("mode {mode:04o}")) && error.contains("chmod 600"), "{error}");
        }
    }

    #[test]
    fn a_file_without_keys_is_refused_by_name_and_line_and_no_key_is_shown() {
        let (_folder, path) = key_file(&format!("{KEY}\nAAAA\n"), 0o600);
        let error = read_keys(&path).unwrap_err();
        assert!(error.ends_with("cluster.keys: line 2: a key of 3 bytes: a key has 32"), "{error}");
        let (_folder, path) = key_file(&"#".repeat(70_000), 0o600);
        assert!(read_keys(&path).unwrap_err().ends_with("has more than 64 KiB; put only keys in it"));
        let missing = read_keys(Path::new("/nowhere/keys")).unwrap_err();
        assert!(missing.contains("No such file") && missing.contains("base64"), "{missing}");
        assert_eq!(format!("{:?}", SecretKeys::new(KEY).unwrap()), "SecretKeys");
    }

    #[test]
    fn members_are_named_by_address_or_name() {
        for right in ["172.30.0.27:7481", "seed:1", "a.example.org:7481", "seed-1.fan_x.:7481"] {
            assert_eq!(seed(right), Ok(()), "{right}");
        }
        for wrong in [
            "172.30.0.27",
            "172.30.0:7481",
            "0.0.0.0:7481",
            "a b:1",
            ":7481",
            "seed:0",
            "seed:x",
            "[::1]:7481",
        ] {
            assert!(seed(wrong).unwrap_err().contains("write one such as"), "{wrong}");
        }
    }
}
