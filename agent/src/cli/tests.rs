use super::*;

fn words(line: &str) -> Vec<OsString> {
    line.split_whitespace().map(OsString::from).collect()
}

fn usage(line: &str) -> String {
    match parse(&words(line)) {
        Ok(_) => panic!("'{line}' was understood"),
        Err(line) => line,
    }
}

#[test]
fn words_that_cant_be_parsed_are_one_line_with_a_remedy() {
    for (line, want) in [
        ("fanlight", "which command is missing; use check-config, completions or manual"),
        ("fanlight check-confg", "no command 'check-confg'; did you mean 'check-config'?"),
        ("fanlight xyzzy", "no command 'xyzzy'; use check-config, completions or manual"),
        ("fanlight --jsn manual", "manual: no option '--jsn'; did you mean '--json'?"),
        ("fanlight manual --foo", "manual: no option '--foo'; see 'fanlight manual --help'"),
        ("fanlight manual foo", "manual: nothing to be done with 'foo'; see 'fanlight manual --help'"),
        (
            "fanlight check-config a b",
            "check-config: nothing to be done with 'b'; see 'fanlight check-config --help'",
        ),
        ("fanlight completions", "completions: <SHELL> is missing; see 'fanlight completions --help'"),
        (
            "fanlight completions csh",
            "completions: 'csh' is no <SHELL>; use bash, elvish, fish, powershell or zsh",
        ),
    ] {
        assert_eq!(usage(line), want, "{line}");
    }
}

#[test]
fn the_definition_of_the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn called_as_fanctl_it_is_the_fan_command() {
    assert_eq!(as_fanlight(words("/usr/sbin/fanctl up -a")), words("/usr/sbin/fanctl fan up -a"));
    assert_eq!(as_fanlight(words("fanlight fan up")), words("fanlight fan up"));
}
