use super::*;

const SMALL: &str =
    "[gateway]\nname = \"g\"\ndata_dir = \"/tmp/x\"\n[source.listener]\nbind = \"127.0.0.1:0\"\n";

fn problems(text: &str) -> Vec<String> {
    let errors = parse(text, "g.toml").unwrap_err();
    errors.to_string().lines().map(str::to_owned).collect()
}

fn with(rest: &str) -> Vec<String> {
    problems(&format!("{SMALL}{rest}"))
}

#[test]
fn the_template_works_as_it_is_and_with_every_comment_taken_away() {
    parse(TEMPLATE, "template").unwrap();
    let is_key = |rest: &str| {
        rest.starts_with('[') || rest.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '))
    };
    let open: Vec<&str> = TEMPLATE
        .lines()
        .map(|line| line.strip_prefix("# ").filter(|rest| is_key(rest)).unwrap_or(line))
        .filter(|line| {
            !line.contains("password") && !line.contains("secret_files") && !line.contains("hardware_configs")
        })
        .filter(|line| !line.contains("username") && !line.contains("ca_file"))
        .collect();
    let config = parse(&open.join("\n"), "template").unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(config.journal, Journal::default());
    assert_eq!(config.session, Session::default());
    let Pipeline { bands, spectrum, .. } = config.pipeline.clone();
    assert!(bands.len() == 1 && spectrum.envelope_band_hz.is_some());
    let spectrum = Spectrum { envelope_band_hz: None, ..spectrum };
    assert_eq!(Pipeline { bands: Vec::new(), spectrum, ..config.pipeline }, Pipeline::default());
    assert!(config.forward.kafka.is_some() && config.source.json.len() == 1 && config.source.mqtt.len() == 1);
}

#[test]
fn bands_and_spectra_that_cannot_be_are_told() {
    let text = "[gateway]\nname = \"g\"\ndata_dir = \"d\"\n[source.listener]\nbind = \"127.0.0.1:0\"\n[pipeline]\nhigh_frequency_hz = 0.0\n\
                [[pipeline.band]]\nname = \"a b\"\nlow_hz = 5.0\nhigh_hz = 5.0\n\
                [pipeline.spectrum]\naverage = \"2min\"\nresolution_hz = -1.0\n\
                [[rule]]\nname = \"r\"\nfeature = \"band:ab\"\nunit = \"m/s2\"\nabove = 1.0\n";
    let found = problems(text).join("\n");
    for wanted in [
        "g.toml:7:1: pipeline.high_frequency_hz: is not above 0",
        "g.toml:9:1: pipeline.band[0].name: `a b` cannot be a name",
        "g.toml:11:1: pipeline.band[0].high_hz: is not above `low_hz`",
        "g.toml:13:1: pipeline.spectrum.average: is not above 0 up to `every`",
        "g.toml:14:1: pipeline.spectrum.resolution_hz: is not above 0",
        "rule[0].feature: `band:ab` is not measured",
    ] {
        assert!(found.contains(wanted), "{wanted} is not in:\n{found}");
    }
}

#[test]
fn a_rule_can_name_a_band_in_its_unit() {
    let text = |unit: &str| {
        format!(
            "[gateway]\nname = \"g\"\ndata_dir = \"d\"\n[source.listener]\nbind = \"127.0.0.1:0\"\n[[pipeline.band]]\nname = \"mesh\"\nlow_hz = 5.0\n\
             high_hz = 9.0\n[[rule]]\nname = \"r\"\nfeature = \"band:mesh\"\nunit = \"{unit}\"\nabove = 1.0\n"
        )
    };
    parse(&text("m/s2"), "g.toml").unwrap();
    let error = parse(&text("mm/s"), "g.toml").unwrap_err().to_string();
    assert!(error.contains("`mm/s` is not the unit of band:mesh"), "{error}");
}

#[test]
fn the_machines_of_hardware_configs_come_with_the_configuration() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../hardware-configs");
    let text = format!(
        "[gateway]\nname = \"g\"\ndata_dir = \"d\"\nhardware_configs = {folder:?}\n[source.listener]\nbind = \"127.0.0.1:0\"\n"
    );
    let config = parse(&text, "g.toml").unwrap();
    assert_eq!(config.machines["cwru-rig"].bearing.len(), 1);
}

#[test]
fn everything_wrong_is_said_at_once_with_its_line_and_what_would_be_right() {
    let text = "[gateway]\nnam = \"g\"\ndata_dir = 5\n[source.listener]\nbind = \"everywhere\"\n[journal]\nsize_max = \"8 GB2\"\n\
                [session]\nreorder_wait = 5\n[log]\nformat = \"jsn\"\n";
    let found = problems(text);
    let expect = [
        ("g.toml:2:1: gateway.nam: unknown key", "did you mean `name`?"),
        ("g.toml:3:12: gateway.data_dir: is a whole number", "text in quotes"),
        ("g.toml:5:8: source.listener.bind: `everywhere` is not understood", "127.0.0.1:1883"),
        ("g.toml:7:12: journal.size_max: `8 GB2` is not understood", "8 GiB"),
        ("g.toml:9:16: session.reorder_wait: is a whole number", "250ms"),
        ("g.toml:11:10: log.format: `jsn` is unknown", "did you mean `json`?"),
    ];
    assert_eq!(found.len(), expect.len(), "{found:#?}");
    for ((start, right), line) in expect.iter().zip(&found) {
        assert!(line.starts_with(start) && line.contains(right), "{line}");
    }
}

#[test]
fn what_is_missing_is_said_with_the_form_it_must_have() {
    let found = problems("[gateway]\nname = \"g\"\n[source.listener]\n");
    assert!(
        found[0].starts_with("g.toml:1:1: gateway.data_dir: is missing; add `data_dir = ...`, text"),
        "{found:?}"
    );
    assert!(found[1].starts_with("g.toml:3:1: source.listener.bind: is missing"), "{found:?}");
}

#[test]
fn a_misspelt_key_does_not_hide_what_else_is_wrong() {
    let found = problems(
        "[gateway]\nname = \"a b\"\ndatadir = \"x\"\n[journal]\nsize_max = \"1 MiB\"\nsegment_size = 7\n",
    );
    let starts = [
        "g.toml:2:1: gateway.name",
        "g.toml:3:1: gateway.datadir",
        "g.toml:5:1: journal.size_max",
        "g.toml:6:16: journal.segment_size",
    ];
    for start in starts {
        assert!(found.iter().any(|line| line.starts_with(start)), "{start}: {found:#?}");
    }
}

#[test]
fn several_syntax_errors_are_said_together() {
    let found = problems("[gateway\nname = \"g\"\nx = = 3\n");
    assert!(found.len() >= 2 && found[0].starts_with("g.toml:1:"), "{found:#?}");
}

#[test]
fn a_key_in_the_wrong_section_is_told_where_it_belongs() {
    let found = with("reorder_wait = \"1s\"\n");
    assert!(found[0].contains("it belongs under [session]"), "{found:?}");
}

#[test]
fn a_limit_rule_is_checked_against_what_the_pipeline_measures() {
    let rule = |feature: &str, unit: &str, rest: &str| {
        with(&format!(
            "[[rule]]\nname = \"a\"\nfeature = \"{feature}\"\nunit = \"{unit}\"\nabove = 5.0\n{rest}"
        ))
    };
    let found = rule("velocty_rms", "mm/s", "");
    assert!(
        found[0].starts_with("g.toml:8:") && found[0].ends_with("did you mean `velocity_rms`?"),
        "{found:?}"
    );
    let found = rule("velocity_rms", "in/s", "");
    assert!(found[0].contains("convert the limit"), "{found:?}");
    let found = rule("peak", "m/s²", "");
    assert!(found[0].ends_with("write \"m/s2\""), "{found:?}");
    let found = rule("peak", "m/s2", "deadband = 5.0\nsensor = \"a/b\"\naxis = \"xy\"\n");
    assert_eq!(found.len(), 3, "{found:#?}");
}

#[test]
fn two_of_one_name_are_told_apart_by_line() {
    let rule = "[[rule]]\nname = \"a\"\nfeature = \"peak\"\nunit = \"m/s2\"\nabove = 1.0\n";
    let found = with(&format!("{rule}{rule}"));
    assert_eq!(found, ["g.toml:12:1: rule[1].name: `a` is taken by rule[0]; give each its own"]);
}

#[test]
fn secrets_stand_in_files_only_and_guarantees_cannot_be_switched_off() {
    let kafka = "[forward.kafka]\nbrokers = \"k:9092\"\n[forward.kafka.properties]\n\"sasl.password\" = \"x\"\nacks = \"1\"\n";
    let found = with(kafka);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("g.toml:9:") && found[0].contains("secret_files"), "{found:?}");
    assert!(found[1].contains("acks=all"), "{found:?}");
    let found = with(
        "[forward.kafka]\nbrokers = \"k\"\n[forward.kafka.secret_files]\n\"sasl.password\" = \"/nowhere\"\n",
    );
    assert!(found[0].contains("HOST:PORT") && found[1].contains("/nowhere"), "{found:?}");
}

#[test]
fn a_json_mapping_must_say_whose_samples_they_are() {
    let mapping = "[[source.json]]\nname = \"wireless-xyz\"\ntopic = \"plant/{machin}/+/acc\"\nunit = \"G\"\nrate_hz = 0\n\
                   channels = [{ axis = \"x\", field = \"ax\" }, { axis = \"x\", field = \"\" }]\n";
    let found = with(mapping);
    assert!(
        found.iter().any(|line| line.contains("source.json[0].unit") && line.contains("`g`")),
        "{found:#?}"
    );
    let found = with(&mapping.replace("\"G\"", "\"g\""));
    for part in [
        "{machin}",
        "`+`",
        ".site",
        ".machine",
        ".sensor",
        "rate_hz",
        "channels[1].axis",
        "channels[1].field",
    ] {
        assert!(found.iter().any(|line| line.contains(part)), "{part}: {found:#?}");
    }
}

#[test]
fn a_file_that_is_not_there_is_told_with_the_way_to_make_one() {
    let error = load(std::path::Path::new("/nowhere/gateway.toml")).unwrap_err().to_string();
    assert!(error.starts_with("/nowhere/gateway.toml: ") && error.contains("spindle init"), "{error}");
}

#[test]
fn what_is_wrong_in_hardware_configs_is_said_with_its_own_file_and_line_after_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("nodes")).unwrap();
    let node = "name = \"a\"\nsite = \"s\"\nmachine = \"none\"\nboard = \"none\"\n\
                link = { kind = \"serial\", baud = 9600 }\nsensor = []\n";
    std::fs::write(dir.path().join("nodes/a.toml"), node).unwrap();
    let key = format!("hardware_configs = {:?}\n", dir.path());
    let found = problems(&SMALL.replace("[source", &format!("{key}nam = 1\n[source")));
    let file = dir.path().join("nodes/a.toml").display().to_string();
    assert!(found[0].starts_with("g.toml:5:1: gateway.nam: unknown key"), "{found:#?}");
    for (line, start) in found[1..].iter().zip(["3:1: machine `none`", "4:1: board `none`", "6:1: 0 sensors"])
    {
        assert!(line.starts_with(&format!("{file}:{start}")), "{line}");
    }
    assert_eq!(found.len(), 4, "{found:#?}");
}

#[test]
fn the_schema_names_every_section() {
    let schema = schema::of_config();
    for section in
        ["gateway", "source", "session", "journal", "pipeline", "anomaly", "rule", "forward", "log"]
    {
        assert!(schema["properties"].get(section).is_some(), "{section}");
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]
    /// No text makes it panic, whatever is cut, doubled or replaced in a configuration that works.
    #[test]
    fn no_text_makes_it_panic(cut in 0usize..TEMPLATE.len(), len in 0usize..60, insert in "[\\[\\]{}\"=.a-z0-9\n# ]{0,12}") {
        let open: String = TEMPLATE.replace("\n# ", "\n");
        let start = (0..=cut).rev().find(|&at| open.is_char_boundary(at)).unwrap_or(0);
        let end = (start + len..).find(|&at| at >= open.len() || open.is_char_boundary(at)).unwrap_or(open.len());
        let text = format!("{}{insert}{}", &open[..start], &open[end.min(open.len())..]);
        let _ = parse(&text, "g.toml");
    }
}

#[test]
fn tls_of_a_broker_is_checked_with_its_files_and_unknown_keys_refused() {
    let broker = "[[source.mqtt]]\nname = \"site\"\naddress = \"broker:8883\"\n";
    let found =
        with(&format!("{broker}tls = {{ ca_file = \"/no/such/ca.pem\", key_file = \"/no/such/key\" }}\n"));
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].contains("source.mqtt[0].tls.ca_file: /no/such/ca.pem: No such file"), "{found:?}");
    assert!(found[1].contains("source.mqtt[0].tls.key_file: comes without `cert_file`"), "{found:?}");
    let found = with(&format!("{broker}tls = {{ cafile = \"/no/such/ca.pem\" }}\n"));
    assert!(found.iter().any(|line| line.contains("source.mqtt[0].tls.cafile: unknown key")), "{found:?}");
}
