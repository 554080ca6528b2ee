//! `own` and `group` of an announcement: prefixes that members of a group take over from each other.

use std::{sync::Arc, time::Duration};

use control::{
    announce::{Announcement, Group, Takeover, What},
    model::quoted,
};

use super::{
    super::{duration::within, problem::Problems, section::Section},
    name,
};

/// How long what was taken over is kept once its owner is back.
const HOLD_BACK: Duration = Duration::from_secs(1);
const MAX_HOLD_BACK: Duration = Duration::from_secs(60);
/// Keys that are about a group.
const KEYS: [&str; 3] = ["group", "takeover", "hold-back"];

/// The group of an announcement that has prefixes of its own; none of another.
pub(super) fn group(section: &Section<'_, '_>, has_own: bool, problems: &mut Problems<'_>) -> Option<Group> {
    if !has_own {
        for key in KEYS.into_iter().filter(|key| section.get(key).is_some()) {
            let why = "is about prefixes in own, and there are none here; remove it, or add own";
            problems.add(&section.place(key), section.key(key), why);
        }
        return None;
    }
    if section.get("group").is_none() {
        let why = "is missing beside own; name the nodes that take over from each other, such as \"apex\"";
        problems.add(&section.span, section.key("group"), why);
    }
    let by_all = section.parsed("takeover", by_all, problems).unwrap_or_default();
    let hold_back = section.parsed("hold-back", |text| within(text, Duration::ZERO, MAX_HOLD_BACK), problems);
    let takeover = Takeover { by_all, hold_back: hold_back.unwrap_or(HOLD_BACK) };
    let name: Arc<str> = section.parsed("group", name, problems)?;
    Some(Group { name, takeover })
}

fn by_all(text: &str) -> Result<bool, String> {
    match text {
        "one" => Ok(false),
        "all" => Ok(true),
        other => Err(format!("{} is unknown; use one or all", quoted(other))),
    }
}

/// Another announcement of the same group.
pub(super) fn twice<'a>(others: &'a [Announcement], own: &Announcement) -> Option<&'a str> {
    let of = |announcement: &Announcement| match &announcement.what {
        What::Own(_, group) => Some(Arc::clone(&group.name)),
        What::Prefixes(_) | What::Services(..) | What::Slices | What::Endpoints => None,
    };
    let group = of(own)?;
    others.iter().find(|other| of(other).as_ref() == Some(&group)).map(|other| &*other.name)
}
