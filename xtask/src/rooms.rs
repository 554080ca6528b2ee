//! Which module of the agent and of `control` imports which: no circles, and only what the tables here allow.

use std::collections::{BTreeMap, BTreeSet};

use crate::tidy::{File, files, none};

/// The agent's rooms, and what each may import of the others.
const AGENT: [(&str, &[&str]); 10] = [
    ("kernel", &[]),
    ("sources", &["kernel"]),
    ("announce", &["cluster", "health", "kernel", "sources"]),
    ("node", &["kernel"]),
    ("cluster", &["kernel", "sources"]),
    ("health", &["cluster", "kernel"]),
    ("serve", &["announce", "cluster", "health", "kernel", "sources"]),
    ("inspect", &["health", "kernel", "node", "serve"]),
    ("run", &["announce", "cluster", "health", "inspect", "kernel", "node", "serve", "sources"]),
    ("cli", &["announce", "inspect", "kernel", "node", "run", "serve", "sources"]),
];
/// The same for `control`.
const CONTROL: [(&str, &[&str]); 10] = [
    ("announce", &["bgp", "health", "model"]),
    ("bgp", &[]),
    ("model", &[]),
    ("health", &["model"]),
    ("cluster", &["health", "model", "service"]),
    ("service", &["health", "model"]),
    ("desired", &["health", "model", "service"]),
    ("observed", &["model", "service"]),
    ("filter", &["model", "observed"]),
    ("reconcile", &["model", "observed", "service"]),
];
/// Rooms whose own modules have no circles either.
const INSIDE: [&str; 6] = ["announce", "cluster", "node", "inspect", "sources", "run"];
/// The same in `control`.
const INSIDE_CLUSTER: [&str; 3] = ["log", "records", "rotation"];

/// Modules by name, each with those that it imports.
type Graph = BTreeMap<String, BTreeSet<String>>;

/// A module's place: its names from the crate on.
type Place = Vec<String>;

/// The module that a file holds.
fn module(source: &str, file: &str) -> Option<Place> {
    let path = file.strip_prefix(source)?.strip_suffix(".rs")?;
    let mut place: Place = path.split('/').map(str::to_owned).collect();
    if place.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
        place.pop();
    }
    Some(place)
}

/// What a module's code imports from its own crate, by `crate::` and `super::`, as places.
fn imports(module: &[String], code: &str) -> Vec<Place> {
    let mut found = Vec::new();
    for (start, word) in ["crate::", "super::"].iter().flat_map(|word| code.match_indices(word)) {
        let before = &code[..start];
        let is_part = |last: char| last.is_alphanumeric() || last == '_' || last == ':';
        if before.ends_with(is_part) {
            continue;
        }
        let mut rest = &code[start + word.len()..];
        let mut base = if word == "crate::" { 0 } else { module.len().saturating_sub(1) };
        while let Some(further) = rest.strip_prefix("super::") {
            (rest, base) = (further, base.saturating_sub(1));
        }
        tree(rest, &mut module[..base].to_vec(), &mut found);
    }
    found
}

/// Reads one path, or a list of them in braces; gives what follows.
fn tree<'t>(text: &'t str, place: &mut Place, found: &mut Vec<Place>) -> &'t str {
    let mut text = text.trim_start();
    if let Some(mut list) = text.strip_prefix('{') {
        while !list.trim_start().starts_with('}') && !list.trim_start().is_empty() {
            let rest = tree(list, place, found).trim_start();
            // An alias, and what else a path may end with.
            let end = rest.find([',', '}']).unwrap_or(rest.len());
            list = rest[end..].strip_prefix(',').unwrap_or(&rest[end..]);
        }
        return list.trim_start().strip_prefix('}').unwrap_or_default();
    }
    let length = text.find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap_or(text.len());
    let name = &text[..length];
    text = &text[length..];
    place.push(name.to_owned());
    match text.strip_prefix("::") {
        Some(further) => text = tree(further, place, found),
        None => found.push(place.clone()),
    }
    place.pop();
    text
}

/// Code without comments and without the tests at its end.
fn code(file: &File) -> String {
    let lines = file.code().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Which of the modules right below `parent` imports which, by name.
fn graph(files: &[(Place, String)], parent: &[&str]) -> Graph {
    let child = |place: &Place| {
        let is_below = place.len() > parent.len() && place.iter().zip(parent).all(|(own, name)| own == name);
        is_below.then(|| place[parent.len()].clone())
    };
    let names: BTreeSet<String> = files.iter().filter_map(|(place, _)| child(place)).collect();
    let mut graph = Graph::new();
    for (place, text) in files {
        let Some(own) = child(place) else { continue };
        let imported = imports(place, text).into_iter().filter_map(|place| child(&place));
        let others = imported.filter(|name| names.contains(name) && *name != own);
        graph.entry(own.clone()).or_default().extend(others);
    }
    graph
}

/// A circle, as its way round; none when there is no circle.
fn circle(graph: &Graph) -> Option<String> {
    fn walk<'g>(
        graph: &'g Graph,
        name: &'g str,
        way: &mut Vec<&'g str>,
        over: &mut BTreeSet<&'g str>,
    ) -> bool {
        if let Some(start) = way.iter().position(|other| *other == name) {
            way.drain(..start);
            way.push(name);
            return true;
        }
        way.push(name);
        let next = graph.get(name).into_iter().flatten();
        if over.insert(name) && next.into_iter().any(|next| walk(graph, next, way, over)) {
            return true;
        }
        way.pop();
        false
    }
    let mut over = BTreeSet::new();
    graph.keys().find_map(|name| {
        let mut way = Vec::new();
        walk(graph, name, &mut way, &mut over).then(|| way.join(" -> "))
    })
}

/// Imports that a table does not allow, and modules that it does not know.
fn forbidden(graph: &Graph, table: &[(&str, &[&str])]) -> Vec<String> {
    let of = |room: &str| table.iter().find(|(name, _)| *name == room).map(|(_, may)| *may);
    let mut wrong = Vec::new();
    for (room, imported) in graph {
        match of(room) {
            Some(may) => {
                let others = imported.iter().filter(|other| !may.contains(&other.as_str()));
                wrong.extend(others.map(|other| format!("{room} imports {other}")));
            }
            None => wrong.push(format!("{room} is not in the table of xtask/src/rooms.rs")),
        }
    }
    wrong
}

/// The modules of a crate with their code, without tests.
fn modules(source: &str) -> Vec<(Place, String)> {
    let files = files();
    let own = files.iter().filter(|file| file.is_rust() && !file.is_test());
    own.filter_map(|file| Some((module(source, &file.name)?, code(file)))).collect()
}

#[test]
fn rooms_of_the_agent_import_only_what_they_may() {
    let modules = modules("agent/src/");
    let rooms = graph(&modules, &[]);
    assert_eq!(rooms.len(), AGENT.len(), "{rooms:?}");
    none("a circle of rooms", circle(&rooms).into_iter().collect());
    none("an import between rooms", forbidden(&rooms, &AGENT));
    let inside = INSIDE.iter().filter_map(|room| circle(&graph(&modules, &[room])));
    none("a circle within a room", inside.collect());
}

#[test]
fn modules_of_control_import_only_what_they_may() {
    let files = modules("control/src/");
    let modules = graph(&files, &[]);
    assert_eq!(modules.len(), CONTROL.len(), "{modules:?}");
    none("a circle of modules", circle(&modules).into_iter().collect());
    none("an import between modules", forbidden(&modules, &CONTROL));
    let inside = INSIDE_CLUSTER.iter().filter_map(|room| circle(&graph(&files, &["cluster", room])));
    none("a circle within a module", inside.collect());
}

#[test]
fn a_planted_circle_is_found_with_its_way() {
    let file = |name: &str, text: &str| (module("src/", name).unwrap(), text.to_owned());
    let files = [
        file("src/lib.rs", "pub mod a;"),
        file("src/a/mod.rs", "use std::io;\nuse crate::{\n    b::{self, X as Y},\n    c,\n};"),
        file("src/b/deep/own.rs", "use super::other;\nfn f() { super::super::super::d::f(crate::b::X) }"),
        file("src/c.rs", "use not_crate::a; use super::b::{deep::X};"),
        file("src/d.rs", "fn f(x: crate::a::X) {}"),
    ];
    let rooms = graph(&files, &[]);
    assert_eq!(circle(&rooms).as_deref(), Some("a -> b -> d -> a"));
    assert_eq!(rooms["c"], ["b".to_owned()].into());
    let table: [(&str, &[&str]); 3] = [("a", &["b", "c"]), ("b", &["d"]), ("c", &[])];
    assert_eq!(forbidden(&rooms, &table), ["c imports b", "d is not in the table of xtask/src/rooms.rs"]);
    assert_eq!(circle(&graph(&files[..4], &[])), None);
}
