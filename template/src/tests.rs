//! What placeholders stand for, and that no text makes them fail but with an error.

use std::sync::Arc;

use proptest::prelude::*;
use skep_proto::v1::task_spec::Runtime;

use super::*;

struct Files;

impl Payload for Files {
    fn secret(&self, target: &str) -> Option<Vec<u8>> {
        (target == "key").then(|| b"\xffhunter2".to_vec())
    }

    fn config(&self, target: &str) -> Option<Vec<u8>> {
        (target == "big").then(|| vec![b'x'; 1 << 20])
    }
}

fn node() -> Node {
    Node {
        id: "n1".to_owned(),
        hostname: "here".to_owned(),
        os: "linux".to_owned(),
        architecture: "x86_64".to_owned(),
    }
}

fn task() -> v1::Task {
    let mut task = v1::Task {
        id: "t1".to_owned(),
        service_id: "s1".to_owned(),
        slot: 3,
        ..Default::default()
    };
    let service = v1::Annotations {
        name: "web".to_owned(),
        labels: BTreeMap::from([
            ("tier".to_owned(), "front".to_owned()),
            ("com.example/x".to_owned(), "y".to_owned()),
        ]),
        ..Default::default()
    };
    task.service_annotations = Some(service);
    let spec = v1::ContainerSpec {
        env: vec!["A=1".to_owned(), "SLOT=no. {{.Task.Slot}}".to_owned()],
        ..Default::default()
    };
    task.spec_mut().runtime = Some(Runtime::Container(spec));
    task
}

fn expand(text: &str) -> Result<String, Error> {
    Scope::of_task(&task(), &node()).expand(text)
}

fn payload(text: &str) -> Result<Vec<u8>, Error> {
    Scope::of_payload(&task(), &node(), &Files).expand_bytes(text.as_bytes())
}

#[test]
fn fields_of_service_node_and_task() {
    for (text, expanded) in [
        ("plain } } { {", "plain } } { {"),
        ("{{.Service.ID}}/{{ .Service.Name }}", "s1/web"),
        ("{{.Service.Labels.tier}}", "front"),
        (r#"{{index .Service.Labels "com.example/x"}}"#, "y"),
        ("{{index .Service.Labels `none`}}.", "."),
        ("{{.Node.ID}} {{.Node.Hostname}}", "n1 here"),
        (
            "{{.Node.Platform.OS}}-{{.Node.Platform.Architecture}}",
            "linux-x86_64",
        ),
        (
            "{{.Task.ID}} {{.Task.Name}} {{.Task.Slot}}",
            "t1 web.3.t1 3",
        ),
        (r#"{{join "-" .Service.Name .Task.Slot "x"}}"#, "web-3-x"),
        (r#"{{"a}}\"\\\n"}}"#, "a}}\"\\\n"),
        ("a {{- /* gone */ -}} b{{/**/}}c", "abc"),
        ("a\n {{- .Task.Slot -}} \nb", "a3b"),
        ("{{ .Task.Slot -}}  ", "3"),
    ] {
        assert_eq!(expand(text).as_deref(), Ok(expanded), "{text}");
    }
}

#[test]
fn a_task_of_each_node_has_the_node_as_slot() {
    let mut task = task();
    task.slot = 0;
    let expand = |task: &v1::Task, text: &str| Scope::of_task(task, &node()).expand(text).unwrap();
    assert_eq!(expand(&task, "{{.Task.Name}}"), "web.n1.t1");
    task.annotations_mut().name = "given".to_owned();
    assert_eq!(expand(&task, "{{.Task.Name}} {{.Task.Slot}}"), "given n1");
}

#[test]
fn what_is_not_known_is_an_error_that_shows_it() {
    for (text, part) in [
        ("x {{.Task.Slot", "not closed"),
        ("{{}}", "empty"),
        ("{{.}}", "no such field"),
        ("{{.Task}}", "{{.Task}}"),
        ("{{.Task.Color}}", "no such field"),
        ("{{.Service.Labels}}", "name one of the labels"),
        ("{{.Service.Labels.none}}", "no label \"none\""),
        ("{{if .Task.Slot}}x{{end}}", "if is not known here"),
        ("{{.Task.Slot | printf}}", "not known here"),
        ("{{.Task.Slot|printf}}", "separated"),
        ("{{index .Service.Labels}}", "wrong number"),
        ("{{index .Task.ID \"x\"}}", "needs labels"),
        ("{{.Task.ID .Task.ID}}", "only functions"),
        ("{{env \"A\"}}", "secrets and configs only"),
        ("{{\"\\x\"}}", "escape"),
        ("{{\"a\"\"b\"}}", "separated"),
    ] {
        let error = expand(text).expect_err(text).to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn what_go_knows_is_told_from_what_nobody_does() {
    for text in [
        "{{if .Task.Slot}}x{{end}}",
        "{{range .Service.Labels}}{{.}}{{end}}",
        "{{$slot := .Task.Slot}}{{$slot}}",
        "{{.Task.Slot | printf \"%03d\"}}",
        "{{.Task.Slot|printf \"%03d\"}}",
        "{{(index .Service.Labels \"tier\")}}",
        "{{index .Service.Labels (join \"i\" \"t\" \"er\")}}",
        "{{eq 1 -1}}",
        "{{'x'}}",
        "{{\"\\x41\"}}",
        "{{with .Task}}{{.Slot}}{{end}} {{",
    ] {
        let error = expand(text).expect_err(text);
        assert!(matches!(error, Error::Foreign { .. }), "{text}: {error:?}");
    }
    for text in [
        "{{iff .Task.Slot}}",
        "{{.Task.Color}}{{if .Task.Slot}}{{end}}",
        "{{!.Task.Slot}}",
        "{{\"\\q\"}}",
        "{{.Service.Labels.none}}",
        "{{.Task.Slot",
    ] {
        let error = expand(text).expect_err(text);
        assert!(!matches!(error, Error::Foreign { .. }), "{text}: {error:?}");
    }
}

#[test]
fn payloads_see_environment_secrets_and_configs() {
    assert_eq!(payload("{{env \"A\"}}{{env \"none\"}}").unwrap(), b"1");
    assert_eq!(payload("<{{secret \"key\"}}>").unwrap(), b"<\xffhunter2>");
    let error = payload("{{secret \"none\"}}").unwrap_err().to_string();
    assert!(error.contains("no secret with target \"none\""), "{error}");
    assert_eq!(
        payload(&"{{config \"big\"}}".repeat(5)),
        Err(Error::TooLong)
    );
}

#[test]
fn a_task_is_expanded_as_a_whole_or_not_at_all() {
    let mut plain = task();
    let Some(Runtime::Container(spec)) = &mut plain.spec_mut().runtime else {
        panic!("no container")
    };
    spec.env.pop();
    let plain = Arc::new(plain);
    assert!(Arc::ptr_eq(&expand_task(&plain, &node()).unwrap(), &plain));

    let mut full = task();
    let Some(Runtime::Container(spec)) = &mut full.spec_mut().runtime else {
        panic!("no container")
    };
    spec.hostname = "{{.Node.Hostname}}-{{.Task.Slot}}".to_owned();
    let mut mount = v1::Mount {
        source: "/data/{{.Task.Slot}}".to_owned(),
        target: "/{{.Service.Name}}".to_owned(),
        ..Default::default()
    };
    let mut options = v1::mount::VolumeOptions::default();
    options
        .labels
        .insert("l".to_owned(), "{{.Task.ID}}".to_owned());
    let mut driver = v1::Driver::default();
    driver
        .options
        .insert("o".to_owned(), "{{.Node.Platform.OS}}".to_owned());
    options.driver_config = Some(driver);
    mount.volume_options = Some(options);
    spec.mounts.push(mount);
    let mut bad = full.clone();
    let expanded = expand_task(&Arc::new(full), &node()).unwrap();
    let Some(Runtime::Container(spec)) = &expanded.spec().runtime else {
        panic!("no container")
    };
    assert_eq!(spec.env, ["A=1", "SLOT=no. 3"]);
    assert_eq!(spec.hostname, "here-3");
    assert_eq!(
        (
            spec.mounts[0].source.as_str(),
            spec.mounts[0].target.as_str()
        ),
        ("/data/3", "/web")
    );
    let options = spec.mounts[0].volume_options.clone().unwrap();
    assert_eq!(options.labels["l"], "t1");
    assert_eq!(options.driver_config.unwrap().options["o"], "linux");

    let Some(Runtime::Container(spec)) = &mut bad.spec_mut().runtime else {
        panic!("no container")
    };
    spec.mounts[0].source = "{{.Nope}}".to_owned();
    assert!(expand_task(&Arc::new(bad), &node()).is_err());
}

#[test]
fn names_of_variables_are_no_templates() {
    let mut task = task();
    let Some(Runtime::Container(spec)) = &mut task.spec_mut().runtime else {
        panic!("no container")
    };
    spec.env = vec!["{{.Nope}}=1".to_owned(), "{{.Nope}}".to_owned()];
    let task = Arc::new(task);
    assert!(Arc::ptr_eq(&expand_task(&task, &node()).unwrap(), &task));
}

#[test]
fn a_rehearsal_needs_no_task() {
    let service = task().service_annotations.unwrap();
    let mut spec = v1::ContainerSpec {
        hostname: "{{.Service.Name}}-{{.Task.Slot}}.{{.Service.Labels.tier}}".to_owned(),
        env: vec!["NODE={{.Node.ID}}".to_owned()],
        ..Default::default()
    };
    let expanded = rehearse(&spec, &service).unwrap();
    assert_eq!(expanded.hostname, "web-1.front");
    assert_eq!(expanded.env, ["NODE=nodeid"]);

    spec.env.push("ODD={{if .Task.Slot}}1{{end}}".to_owned());
    let expanded = rehearse(&spec, &service).unwrap();
    assert_eq!(
        expanded.env,
        ["NODE=nodeid", "ODD={{if .Task.Slot}}1{{end}}"]
    );

    spec.hostname = "{{.Service.Labels.none}}".to_owned();
    let error = rehearse(&spec, &service).unwrap_err().to_string();
    let text = "template placeholder {{.Service.Labels.none}}: the service has no label \"none\"";
    assert_eq!(error, text);
}

proptest! {
    /// Whatever is written, the answer is a text or an error.
    #[test]
    fn no_text_breaks_it(text in r#"([{}\-."`\\ /*a-zé]|\{\{|\}\}|\.Task\.Slot|index|\PC){0,40}"#) {
        let _ = expand(&text);
        let _ = payload(&text);
    }

    /// What has no placeholder stays as it is.
    #[test]
    fn plain_bytes_stay(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assume!(!bytes.windows(2).any(|pair| pair == b"{{"));
        let (task, node) = (task(), node());
        let scope = Scope::of_payload(&task, &node, &Files);
        prop_assert_eq!(scope.expand_bytes(&bytes).unwrap(), bytes);
    }
}
