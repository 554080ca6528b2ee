use control::{
    desired::{Dirty, Input, Inputs, SourceId, desired},
    service::{Service, Vip},
};

use super::*;

/// What a node with so many services answers from.
fn view(services: usize) -> View {
    let service = |number: usize| Service::<Vip> {
        name: format!("s{number:05}"),
        vip: format!("10.96.{}.{}:80/tcp", number / 256, number % 256).parse().unwrap(),
        algorithm: Algorithm::Maglev,
        checking: None,
        backends: Vec::new(),
    };
    let services: Vec<_> = (0..services).map(service).collect();
    let mut inputs = Inputs::default();
    inputs.replace(SourceId::File, Input::defining("fanlight.toml", &services));
    let (desired, _changed) = desired(&inputs, &control::desired::Desired::default(), &Dirty::All);
    View { desired, ..View::default() }
}

fn parts(view: &View) -> Vec<Vec<u8>> {
    let mut list = view.list(None).unwrap();
    std::iter::from_fn(|| Some(list.part().unwrap()).filter(|part| !part.is_empty())).collect()
}

#[test]
fn a_list_is_one_array_however_many_parts_it_takes() {
    for services in [0, 1, PART - 1, PART, PART + 1, 3 * PART] {
        let view = view(services);
        let rows: Vec<ServiceRow> = serde_json::from_slice(&parts(&view).concat()).unwrap();
        let names: Vec<_> = rows.iter().map(|row| row.name.as_str()).collect();
        let expected: Vec<_> = view.desired.entries().map(|entry| entry.defined.name.as_str()).collect();
        assert_eq!(names, expected);
    }
}

#[test]
fn no_part_of_a_list_holds_more_services_than_are_written_in_a_moment() {
    let parts = parts(&view(10 * PART));
    assert_eq!(parts.len(), 10);
    for part in parts {
        assert_eq!(String::from_utf8(part).unwrap().matches("\"vip\":").count(), PART);
    }
}
