use std::fs;

use skep_proto::v1::{
    Annotations, ContainerSpec, Driver, Endpoint, PortConfig, endpoint_spec::ResolutionMode,
};
use tempfile::TempDir;

use super::*;

fn secret(driver: &str) -> SecretSpec {
    SecretSpec {
        annotations: Some(Annotations {
            name: "token".to_owned(),
            ..Default::default()
        }),
        driver: Some(Driver {
            name: driver.to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_driver_is_a_socket_or_a_file_with_a_url_and_the_first_directory_counts() {
    let (first, second) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let drivers = SecretDrivers::new(vec![first.path().into(), second.path().into()]);
    let found = async |name: &str| drivers.find(name).await;
    let missing = found("vault").await.unwrap_err();
    assert!(
        missing.starts_with("there is no vault.sock and no vault.spec in /"),
        "{missing}"
    );

    fs::write(second.path().join("vault.spec"), "tcp://10.0.0.1:80\n").unwrap();
    let tcp = Address::Tcp("10.0.0.1:80".to_owned());
    assert_eq!(found("vault").await, Ok(tcp));
    let own = second.path().join("keys");
    fs::create_dir(&own).unwrap();
    fs::write(own.join("keys.spec"), "unix:///run/keys").unwrap();
    assert_eq!(found("keys").await, Ok(Address::Unix("/run/keys".into())));
    let socket = first.path().join("vault.sock");
    fs::write(&socket, "").unwrap();
    assert_eq!(found("vault").await, Ok(Address::Unix(socket)));

    let bad = second.path().join("bad.spec");
    for text in ["", "http://a:1", "unix://relative", "tcp://nowhere"] {
        fs::write(&bad, text).unwrap();
        let error = format!("{text:?} is not unix:///path and not tcp://host:port");
        assert_eq!(found("bad").await, Err(error));
    }
    fs::write(&bad, "x".repeat(1 << 20)).unwrap();
    assert!(found("bad").await.unwrap_err().len() < 5000);
    for name in ["", ".", "..", "../vault", "a/b"] {
        let error = format!("{name:?} cannot be the name of a plugin's file");
        assert_eq!(found(name).await, Err(error));
    }
}

#[test]
fn a_driver_is_told_who_asks_and_nothing_that_is_empty() {
    let mut task = Task {
        id: "t1".to_owned(),
        ..Default::default()
    };
    let asked = question(&secret("vault"), &task);
    let bare = json!({ "SecretName": "token", "TaskID": "t1", "TaskName": "..t1" });
    assert_eq!(asked, bare);

    task.service_id = "s1".to_owned();
    task.node_id = "n1".to_owned();
    task.slot = 2;
    task.service_annotations_mut().name = "web".to_owned();
    let container = ContainerSpec {
        image: "nginx".to_owned(),
        hostname: "www".to_owned(),
        ..Default::default()
    };
    task.spec_mut().runtime = Some(Runtime::Container(container));
    let port = PortConfig {
        target_port: 80,
        published_port: 8080,
        ..Default::default()
    };
    task.endpoint = Some(Endpoint {
        spec: Some(EndpointSpec {
            mode: ResolutionMode::Dnsrr.into(),
            ports: vec![port],
        }),
        ..Default::default()
    });
    let whole = json!({
        "SecretName": "token",
        "ServiceHostname": "www",
        "ServiceID": "s1",
        "ServiceName": "web",
        "TaskID": "t1",
        "TaskName": "web.2.t1",
        "TaskImage": "nginx",
        "NodeID": "n1",
        "ServiceEndpointSpec": {
            "Mode": 1,
            "Ports": [{ "TargetPort": 80, "PublishedPort": 8080 }],
        },
    });
    assert_eq!(question(&secret("vault"), &task), whole);
}

#[test]
fn an_error_in_an_answer_counts_more_than_its_value() {
    assert_eq!(value(&json!({ "Value": "aGk=" })), Ok("hi".into()));
    let both = json!({ "Value": "aGk=", "Err": "sealed" });
    assert_eq!(value(&both), Err("sealed".to_owned()));
    let long = json!({ "Err": "x".repeat(1 << 20) });
    assert_eq!(value(&long).unwrap_err().len(), MAX_REASON_CHARS);
    let odd = json!({ "Value": "aGk=", "Err": { "why": "sealed" } });
    assert_eq!(value(&odd), Err("its Err is not a text".to_owned()));
    let malformed = Err("its Value is not base64".to_owned());
    assert_eq!(value(&json!({ "Value": "%" })), malformed);
    // Which is refused later, as too short.
    for none in [json!({}), json!(null), json!([]), json!({ "Value": 3 })] {
        assert_eq!(value(&none), Ok(Bytes::new()), "{none}");
    }
}
