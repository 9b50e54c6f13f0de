//! The parts of a task that may hold placeholders.

use std::sync::Arc;

use skep_proto::v1::{self, task_spec::Runtime};

use super::{Error, Node, Scope};

/// The task with the placeholders in its environment, hostname and mounts replaced.
pub(crate) fn expand_task(task: &Arc<v1::Task>, node: &Node) -> Result<Arc<v1::Task>, Error> {
    let Some(Runtime::Container(spec)) = &task.spec().runtime else {
        return Ok(Arc::clone(task));
    };
    let mut expanded = spec.clone();
    let mut changed = false;
    let scope = Scope::of_task(task, node);
    for text in texts(&mut expanded) {
        // Most tasks have none.
        if text.contains("{{") {
            *text = scope.expand(text)?;
            changed = true;
        }
    }
    if !changed {
        return Ok(Arc::clone(task));
    }
    let mut task = v1::Task::clone(task);
    task.spec_mut().runtime = Some(Runtime::Container(expanded));
    Ok(Arc::new(task))
}

fn texts(spec: &mut v1::ContainerSpec) -> Vec<&mut String> {
    let mut texts: Vec<_> = spec.env.iter_mut().collect();
    texts.push(&mut spec.hostname);
    for mount in &mut spec.mounts {
        texts.push(&mut mount.source);
        texts.push(&mut mount.target);
        if let Some(options) = &mut mount.volume_options {
            texts.extend(options.labels.values_mut());
            if let Some(driver) = &mut options.driver_config {
                texts.push(&mut driver.name);
                texts.extend(driver.options.values_mut());
            }
        }
    }
    texts
}
