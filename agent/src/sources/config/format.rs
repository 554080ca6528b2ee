//! What configuration is written in, and the words that each format has for its parts.

/// What services are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Tables `[[service]]`.
    Toml,
    /// A list under `service`.
    Yaml,
    /// An array under `service`.
    Json,
}

impl Format {
    /// All of them, with what they are called in HTTP.
    pub const TYPES: [(Self, &str); 3] = [
        (Self::Toml, "application/toml"),
        (Self::Yaml, "application/yaml"),
        (Self::Json, "application/json"),
    ];

    /// The format of a file by the end of its name.
    pub fn of_extension(extension: &str) -> Option<Self> {
        match extension {
            "toml" => Some(Self::Toml),
            "yaml" | "yml" => Some(Self::Yaml),
            "json" => Some(Self::Json),
            _ => None,
        }
    }

    /// What it is called in HTTP.
    pub fn media_type(self) -> &'static str {
        Self::TYPES.into_iter().find(|(format, _)| *format == self).map_or("", |(_, name)| name)
    }

    /// The format of a text without a name, by its first line that is no comment.
    pub fn guess(text: &str) -> Self {
        let mut lines = text.lines().map(str::trim_start);
        let first = lines.find(|line| !line.is_empty() && !line.starts_with('#')).unwrap_or_default();
        let mut marks = first.chars().filter(|mark| !mark.is_whitespace());
        match (marks.next(), marks.next()) {
            (Some('{'), _) | (Some('['), None | Some('{' | '"' | ']')) => Self::Json,
            (Some('['), _) => Self::Toml,
            _ if first.find('=').is_some_and(|at| first.find(':').is_none_or(|colon| at < colon)) => {
                Self::Toml
            }
            _ => Self::Yaml,
        }
    }

    /// What a key and its value are called together, with the article.
    pub(super) fn table(self) -> &'static str {
        match self {
            Self::Toml => "a table",
            Self::Yaml => "a mapping",
            Self::Json => "an object",
        }
    }

    /// What several values under one key are called, with the article.
    pub(super) fn list(self) -> &'static str {
        match self {
            Self::Toml | Self::Yaml => "a list",
            Self::Json => "an array",
        }
    }

    /// A table under a key, and how it is written.
    pub(super) fn table_of(self, key: &str, is_nested: bool) -> String {
        let table = self.table();
        match self {
            Self::Toml if is_nested => format!("{table}; write {key} = {{ .. }}"),
            Self::Toml => format!("{table}; write [{key}]"),
            Self::Yaml => format!("{table}; write '{key}:' and its keys below"),
            Self::Json => format!("{table}; write \"{key}\": {{ .. }}"),
        }
    }

    /// A list of tables under a key, and how it is written.
    pub(super) fn tables_of(self, key: &str, is_nested: bool) -> String {
        match self {
            Self::Toml if is_nested => format!("a list of tables; write {key} = [ {{ .. }} ]"),
            Self::Toml => format!("a list of tables; write [[{key}]]"),
            Self::Yaml => format!("a list of mappings; write '{key}:' and '- ..' below for each"),
            Self::Json => format!("an array of objects; write \"{key}\": [ {{ .. }} ]"),
        }
    }

    /// An empty list under a key.
    pub(super) fn empty(self, key: &str) -> String {
        match self {
            Self::Toml => format!("{key} = []"),
            Self::Yaml => format!("{key}: []"),
            Self::Json => format!("\"{key}\": []"),
        }
    }
}
