//! What a Docker engine answers: one answer is the input, all others are as they should be.

use std::{path::Path, sync::Arc, time::Duration};

use skep_agent::{
    Dependencies,
    executor::{
        Executor as _, TaskContext,
        docker::{DockerExecutor, Engine},
    },
};
use skep_proto::v1;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    task::JoinSet,
};
use tokio_stream::StreamExt as _;

/// A longer answer only takes longer to try.
const MAX_BODY: usize = 8 * 1024;

const STATUS: [u16; 8] = [200, 204, 304, 400, 404, 409, 500, 503];

/// What is asked for: the end of the path, and what an engine answers.
const ANSWERS: &[(&str, &[u8])] = &[
    (
        "/version",
        br#"{"Version":"20.10.24","ApiVersion":"1.41","MinAPIVersion":"1.12"}"#,
    ),
    (
        "/info",
        br#"{"ServerVersion":"20.10","Labels":["disk=ssd","odd"],"NCPU":4,"MemTotal":1073741824,
"Plugins":{"Volume":["local"],"Network":["bridge","overlay"],"Log":["json-file"]},
"GenericResources":[{"DiscreteResourceSpec":{"Kind":"gpu","Value":3}},
{"NamedResourceSpec":{"Kind":"ssd","Value":"a"}}],
"Architecture":"x86_64","OSType":"linux","Swarm":{"LocalNodeState":"inactive"}}"#,
    ),
    (
        "/plugins",
        br#"[{"Name":"p:latest","Enabled":true,"Settings":{"Mounts":[],"Env":[],"Args":[],"Devices":[]},
"Config":{"Interface":{"Types":["docker.volumedriver/1.0"],"Socket":"p.sock"}}}]"#,
    ),
    (
        "/containers/json",
        br#"[{"Id":"c1","Labels":{"com.docker.swarm.task.id":"fuzz"}}]"#,
    ),
    (
        "/containers/c1/json",
        br#"{"Id":"c1","State":{"Status":"created","Running":true,"Pid":7,"ExitCode":0,"OOMKilled":false,
"Error":"","Health":{"Status":"starting","FailingStreak":0}},
"NetworkSettings":{"Ports":{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"},
{"HostIp":"::","HostPort":"8080"}],"443/tcp":null}}}"#,
    ),
    (
        "/events",
        b"{\"Type\":\"container\",\"Action\":\"health_status: healthy\",\"Actor\":{\"ID\":\"c1\",\
          \"Attributes\":{\"image\":\"web\"}},\"time\":1795229356,\"timeNano\":1795229356515224373}\n\
          {\"Type\":\"container\",\"Action\":\"health_status: unhealthy\"}\n",
    ),
    (
        "/logs",
        b"\x01\0\0\0\0\0\0\x252026-11-21T10:04:13.160797820Z hello\n\
          \x02\0\0\0\0\0\0\x242026-11-21T10:04:14.160797820Z oops\n",
    ),
    ("/wait", br#"{"StatusCode":137,"Error":{"Message":"it broke"}}"#),
    ("/start", br#"{"message":"cannot start it: no such port"}"#),
    ("/stop", br#"{"message":"cannot stop it"}"#),
    (
        "/images/create",
        b"{\"status\":\"Pulling\",\"id\":\"1\",\"progressDetail\":{\"current\":1,\"total\":2}}\r\n\
          {\"errorDetail\":{\"code\":1,\"message\":\"denied\"},\"error\":\"denied\"}\r\n",
    ),
    (
        "/containers/create",
        br#"{"Id":"c1","Warnings":["it is slow"]}"#,
    ),
    ("/images/web:1/json", br#"{"Id":"sha256:0"}"#),
    ("/containers/c1", br#"{"message":"removal is in progress"}"#),
];

/// Answers after their number, their status's and the size of their pieces.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (number, (_, answer)) in (0..).zip(ANSWERS) {
        let ok = [&[number, 0, 200], *answer].concat();
        let error = [&[number, 6, 9], br#"{"message":"broken"}"#.as_slice()].concat();
        seeds.extend([ok, error]);
    }
    seeds
}

/// One answer of an engine.
#[derive(Clone)]
struct Answer {
    to: &'static str,
    status: u16,
    /// In bytes.
    piece: usize,
    body: Vec<u8>,
}

impl Answer {
    fn of(input: &[u8]) -> Option<Self> {
        let (head, body) = input.split_first_chunk::<3>()?;
        Some(Self {
            to: ANSWERS[usize::from(head[0]) % ANSWERS.len()].0,
            status: STATUS[usize::from(head[1]) % STATUS.len()],
            piece: usize::from(head[2]) + 1,
            body: body[..body.len().min(MAX_BODY)].to_vec(),
        })
    }

    /// The answer to a request for this path.
    fn for_path(&self, path: &str) -> Self {
        let path = path.split('?').next().unwrap_or_default();
        let known = ANSWERS.iter().find(|(end, _)| path.ends_with(end));
        match known {
            Some((end, _)) if *end == self.to => self.clone(),
            _ => Self {
                to: "",
                status: 200,
                piece: MAX_BODY,
                body: known.map_or(b"{}".as_slice(), |(_, body)| body).to_vec(),
            },
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = format!(
            "HTTP/1.1 {} as told\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n",
            self.status
        )
        .into_bytes();
        for piece in self.body.chunks(self.piece) {
            bytes.extend(format!("{:x}\r\n", piece.len()).into_bytes());
            bytes.extend(piece);
            bytes.extend(b"\r\n");
        }
        bytes.extend(b"0\r\n\r\n");
        bytes
    }
}

/// Answers one request.
async fn serve(mut stream: UnixStream, answer: Answer) {
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read_buf(&mut request).await {
            Ok(1..) => {}
            _ => return,
        }
    }
    let head = String::from_utf8_lossy(&request);
    let path = head.split(' ').nth(1).unwrap_or_default();
    let bytes = answer.for_path(path).bytes();
    let _ = stream.write_all(&bytes).await;
    // What is left of the request must be read, or closing would take the answer back.
    let _ = stream.shutdown().await;
    let _ = stream.read_to_end(&mut request).await;
}

/// All that an agent asks of its engine.
async fn ask(socket: &Path, dir: &Path) {
    let Ok(engine) = Engine::connect(&socket.to_string_lossy()).await else {
        return;
    };
    let _ = engine.is_in_swarm().await;
    let Ok(executor) = DockerExecutor::new(engine).await else {
        return;
    };
    executor.describe(&mut v1::NodeDescription::default());
    let mut task = v1::Task {
        id: "fuzz".into(),
        ..Default::default()
    };
    task.spec_mut().runtime = Some(v1::task_spec::Runtime::Container(v1::ContainerSpec {
        image: "web:1".into(),
        ..Default::default()
    }));
    let context = TaskContext {
        task: Arc::new(task),
        dir: dir.to_owned(),
        dependencies: Dependencies::default(),
    };
    let mut lines = executor.logs(&context, v1::LogSubscriptionOptions::default());
    while let Some(Some(_)) = match &mut lines {
        Some(lines) => Some(lines.next().await),
        None => None,
    } {}
    let mut controller = executor.controller(context).unwrap();
    let _ = controller.adopt(v1::TaskState::Running).await;
    let _ = controller.prepare().await;
    let _ = controller.start().await;
    let _ = controller.wait().await;
    let _ = (controller.container(), controller.ports());
    let _ = controller.shutdown().await;
    let _ = controller.remove().await;
}

pub(crate) fn run(input: &[u8]) {
    let Some(answer) = Answer::of(input) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("socket");
    let asked = runtime.block_on(async {
        let listener = UnixListener::bind(&socket).unwrap();
        let serving = async {
            let mut streams = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                streams.spawn(serve(stream, answer.clone()));
                while streams.try_join_next().is_some() {}
            }
        };
        let asking = tokio::time::timeout(Duration::from_secs(20), ask(&socket, dir.path()));
        tokio::select! {
            asked = asking => asked,
            () = serving => unreachable!("the listener stays open"),
        }
    });
    asked.expect("whatever an engine answers, nobody waits for more");
}
