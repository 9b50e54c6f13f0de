//! Changes to an existing service.

use clap::Args;
use skep_proto::v1::ServiceSpec;

use super::{ListEdits, Settings, container, env_file::key_of, values};
use crate::Error;

/// Changes to a service. Everything not named stays as it is.
#[derive(Debug, Clone, Default, Args)]
pub struct Edits {
    /// The values to set.
    #[command(flatten)]
    pub settings: Settings,
    /// The lists to change.
    #[command(flatten)]
    pub lists: ListEdits,
    /// Set an environment variable
    #[arg(long, value_name = "KEY=VALUE", value_parser = values::assignment)]
    pub env_add: Vec<String>,
    /// Remove an environment variable
    #[arg(long, value_name = "KEY")]
    pub env_rm: Vec<String>,
    /// Set a label of the service
    #[arg(long, value_name = "KEY=VALUE", value_parser = values::label)]
    pub label_add: Vec<(String, String)>,
    /// Remove a label of the service
    #[arg(long, value_name = "KEY")]
    pub label_rm: Vec<String>,
    /// Add a placement constraint
    #[arg(long, value_name = "EXPRESSION")]
    pub constraint_add: Vec<String>,
    /// Remove a placement constraint
    #[arg(long, value_name = "EXPRESSION")]
    pub constraint_rm: Vec<String>,
    /// Replace the arguments of the command, one per --args
    #[arg(
        long,
        value_name = "ARGUMENT",
        allow_hyphen_values = true,
        conflicts_with = "command"
    )]
    pub args: Vec<String>,
    /// Replace all tasks even if nothing else changes
    #[arg(long)]
    pub force: bool,
    /// Replace the command and its arguments
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

impl Edits {
    /// Edits `spec`. Fails with [`Error::Usage`] if the service is of a kind that has no such
    /// value.
    pub fn apply(&self, spec: &mut ServiceSpec) -> Result<(), Error> {
        self.settings.apply(spec)?;
        self.lists.apply(spec)?;
        self.apply_env(spec)?;
        self.apply_command(spec)?;
        self.apply_constraints(spec);
        if !self.label_add.is_empty() || !self.label_rm.is_empty() {
            let labels = &mut spec.annotations_mut().labels;
            labels.retain(|key, _| !self.label_rm.contains(key));
            labels.extend(self.label_add.iter().cloned());
        }
        if self.force {
            let task = spec.task_mut();
            task.force_update = task.force_update.wrapping_add(1);
        }
        Ok(())
    }

    fn apply_env(&self, spec: &mut ServiceSpec) -> Result<(), Error> {
        if self.env_add.is_empty() && self.env_rm.is_empty() {
            return Ok(());
        }
        let env = &mut container(spec.task_mut())?.env;
        env.retain(|variable| !self.env_rm.iter().any(|key| key == key_of(variable)));
        for new in &self.env_add {
            match env.iter_mut().find(|old| key_of(old) == key_of(new)) {
                Some(old) => old.clone_from(new),
                None => env.push(new.clone()),
            }
        }
        Ok(())
    }

    fn apply_command(&self, spec: &mut ServiceSpec) -> Result<(), Error> {
        if let Some((program, arguments)) = self.command.split_first() {
            let container = container(spec.task_mut())?;
            // Where the first word belongs is decided as for a new service: the command of a
            // process, an argument of an image's entrypoint.
            let has_entrypoint = self.settings.container.entrypoint.is_some();
            if container.image == super::PROCESS_IMAGE
                || !container.command.is_empty() && !has_entrypoint
            {
                container.command = vec![program.clone()];
                container.args = arguments.to_vec();
            } else {
                container.args.clone_from(&self.command);
            }
        } else if !self.args.is_empty() {
            container(spec.task_mut())?.args.clone_from(&self.args);
        }
        Ok(())
    }

    fn apply_constraints(&self, spec: &mut ServiceSpec) {
        if self.constraint_add.is_empty() && self.constraint_rm.is_empty() {
            return;
        }
        let constraints = &mut spec
            .task_mut()
            .placement
            .get_or_insert_default()
            .constraints;
        constraints.retain(|old| !self.constraint_rm.contains(old));
        for new in &self.constraint_add {
            if !constraints.contains(new) {
                constraints.push(new.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use skep_proto::v1::{ContainerSpec, GenericRuntimeSpec, task_spec::Runtime};

    use super::*;
    use crate::spec::NewService;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        edits: Edits,
    }

    fn edits(line: &[&str]) -> Edits {
        Line::try_parse_from(["update"].iter().chain(line))
            .unwrap()
            .edits
    }

    fn service() -> ServiceSpec {
        NewService {
            name: "web".to_owned(),
            env: vec!["A=1".to_owned(), "B=2".to_owned()],
            labels: vec![
                ("old".to_owned(), "1".to_owned()),
                ("keep".to_owned(), "1".to_owned()),
            ],
            constraints: vec!["node.role==worker".to_owned()],
            command: vec!["serve".to_owned(), "--port".to_owned()],
            ..Default::default()
        }
        .to_spec()
        .unwrap()
    }

    fn container_of(spec: &ServiceSpec) -> &ContainerSpec {
        match &spec.task().runtime {
            Some(Runtime::Container(container)) => container,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn no_flag_changes_nothing() {
        let mut spec = service();
        edits(&[]).apply(&mut spec).unwrap();
        assert_eq!(spec, service());
    }

    #[test]
    fn lists_are_edited_and_not_replaced() {
        let mut spec = service();
        edits(&[
            "--env-add=B=3",
            "--env-add=C=4",
            "--env-rm=A",
            "--label-add=new=2",
            "--label-rm=old",
            "--constraint-add=node.id==x",
            "--constraint-add=node.role==worker",
        ])
        .apply(&mut spec)
        .unwrap();
        assert_eq!(container_of(&spec).env, ["B=3", "C=4"]);
        let labels: Vec<_> = spec.annotations().labels.keys().collect();
        assert_eq!(labels, ["keep", "new"]);
        let constraints = &spec.task().placement.as_ref().unwrap().constraints;
        assert_eq!(constraints, &["node.role==worker", "node.id==x"]);
    }

    #[test]
    fn the_command_is_replaced_whole_or_in_its_arguments() {
        let mut spec = service();
        edits(&["--args=-v", "--args", "--trace"])
            .apply(&mut spec)
            .unwrap();
        assert_eq!(container_of(&spec).command, ["serve"]);
        assert_eq!(container_of(&spec).args, ["-v", "--trace"]);
        edits(&["--", "other", "x"]).apply(&mut spec).unwrap();
        assert_eq!(container_of(&spec).command, ["other"]);
        assert_eq!(container_of(&spec).args, ["x"]);
    }

    #[test]
    fn an_entry_point_is_no_part_of_the_words_that_follow() {
        let mut spec = service();
        edits(&["--image=nginx", "--entrypoint=sh -c", "--", "serve"])
            .apply(&mut spec)
            .unwrap();
        assert_eq!(container_of(&spec).command, ["sh", "-c"]);
        assert_eq!(container_of(&spec).args, ["serve"]);
    }

    #[test]
    fn force_counts_up() {
        let mut spec = service();
        edits(&["--force"]).apply(&mut spec).unwrap();
        edits(&["--force", "--replicas=0"])
            .apply(&mut spec)
            .unwrap();
        assert_eq!(spec.task().force_update, 2);
    }

    #[test]
    fn values_of_a_container_do_not_fit_other_runtimes() {
        let mut spec = service();
        spec.task_mut().runtime = Some(Runtime::Generic(GenericRuntimeSpec::default()));
        assert!(matches!(
            edits(&["--env-add=A=1"]).apply(&mut spec),
            Err(Error::Usage(_))
        ));
        assert!(edits(&["--replicas=2"]).apply(&mut spec).is_ok());
    }
}
