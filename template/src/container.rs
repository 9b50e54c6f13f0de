//! The parts of a container that may hold placeholders.

use std::sync::Arc;

use skep_proto::v1::{self, task_spec::Runtime};

use super::{Error, Node, Scope};

/// The task with the placeholders in the values of its environment, its hostname and its mounts
/// replaced.
pub fn expand_task(task: &Arc<v1::Task>, node: &Node) -> Result<Arc<v1::Task>, Error> {
    let Some(Runtime::Container(spec)) = &task.spec().runtime else {
        return Ok(Arc::clone(task));
    };
    let mut expanded = spec.clone();
    let scope = Scope::of_task(task, node);
    if !replace(&mut expanded, |text| scope.expand(text))? {
        return Ok(Arc::clone(task));
    }
    let mut task = v1::Task::clone(task);
    task.spec_mut().runtime = Some(Runtime::Container(expanded));
    Ok(Arc::new(task))
}

/// The container as it might be in a task of a service with these annotations: what is not known
/// before there is a task is made up. Fails if no task can be made of it; texts that a Docker engine
/// may understand though nothing here does stay as they are.
pub fn rehearse(
    spec: &v1::ContainerSpec,
    service: &v1::Annotations,
) -> Result<v1::ContainerSpec, Error> {
    let task = v1::Task {
        id: "taskid".to_owned(),
        service_id: "serviceid".to_owned(),
        slot: 1,
        service_annotations: Some(service.clone()),
        ..Default::default()
    };
    let node = Node {
        id: "nodeid".to_owned(),
        hostname: "nodehostname".to_owned(),
        os: "os".to_owned(),
        architecture: "architecture".to_owned(),
    };
    let scope = Scope::of_task(&task, &node);
    let mut expanded = spec.clone();
    replace(&mut expanded, |text| match scope.expand(text) {
        Err(Error::Foreign { .. }) => Ok(text.to_owned()),
        result => result,
    })?;
    Ok(expanded)
}

/// Replaces every text that may hold placeholders and holds one. Says whether there is any.
fn replace(
    spec: &mut v1::ContainerSpec,
    expand: impl Fn(&str) -> Result<String, Error>,
) -> Result<bool, Error> {
    let mut found = false;
    let mut replace = |text: &mut String, from: usize| -> Result<(), Error> {
        // Most have none.
        if text[from..].contains("{{") {
            let expanded = expand(&text[from..])?;
            text.replace_range(from.., &expanded);
            found = true;
        }
        Ok(())
    };
    for variable in &mut spec.env {
        if let Some(at) = variable.find('=') {
            replace(variable, at + 1)?;
        }
    }
    replace(&mut spec.hostname, 0)?;
    for mount in &mut spec.mounts {
        replace(&mut mount.source, 0)?;
        replace(&mut mount.target, 0)?;
        let Some(options) = &mut mount.volume_options else {
            continue;
        };
        let driver = options.driver_config.iter_mut();
        let driver = driver.flat_map(|driver| driver.options.values_mut());
        for text in options.labels.values_mut().chain(driver) {
            replace(text, 0)?;
        }
    }
    Ok(found)
}
