//! `swarmctl service ls`.

use std::collections::BTreeMap;

use clap::Args;
use skep_proto::v1::{
    ListServiceStatusesRequest, ListServicesRequest, Service,
    list_service_statuses_response::ServiceStatus, service_spec::Mode, task_spec::Runtime,
};

use super::show::mode;
use crate::{
    Error,
    commands::Context,
    output::{Format, Table, image_name, natural, short_id},
};

/// Lists services by name.
#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// Print IDs only
    #[arg(short, long)]
    quiet: bool,
}

impl Ls {
    pub(crate) async fn run(self, context: &mut Context<'_>) -> Result<(), Error> {
        let mut control = context.connect().await?.control();
        let reply = control
            .list_services(ListServicesRequest::default())
            .await?;
        let mut services = reply.into_inner().services;
        services
            .sort_by(|a, b| natural(&a.spec().annotations().name, &b.spec().annotations().name));
        let ids = || services.iter().map(|service| &service.id);
        if self.quiet {
            return context.print_ids(ids());
        }
        if context.format == Format::Json {
            return context.print_lines(&services);
        }
        let mut statuses = Vec::new();
        if !services.is_empty() {
            let request = ListServiceStatusesRequest {
                services: ids().cloned().collect(),
            };
            statuses = control
                .list_service_statuses(request)
                .await?
                .into_inner()
                .statuses;
        }
        context.print_table(&table(&services, &statuses))
    }
}

fn table(services: &[Service], statuses: &[ServiceStatus]) -> Table {
    let statuses: BTreeMap<_, _> = statuses
        .iter()
        .map(|status| (&status.service_id, status))
        .collect();
    let mut table = Table::new(["ID", "NAME", "MODE", "REPLICAS", "IMAGE"]);
    for service in services {
        let status = statuses
            .get(&service.id)
            .copied()
            .cloned()
            .unwrap_or_default();
        let image = match &service.spec().task().runtime {
            Some(Runtime::Container(container)) => image_name(&container.image),
            _ => "",
        };
        table.row([
            short_id(&service.id).to_owned(),
            service.spec().annotations().name.clone(),
            mode(service).to_owned(),
            replicas(service, &status),
            image.to_owned(),
        ]);
    }
    table
}

/// `2/3`, with what limits or completes them.
fn replicas(service: &Service, status: &ServiceStatus) -> String {
    let counted = format!("{}/{}", status.running_tasks, status.desired_tasks);
    let most = service
        .spec()
        .task()
        .placement
        .as_ref()
        .map_or(0, |placement| placement.max_replicas);
    match &service.spec().mode {
        Some(Mode::ReplicatedJob(job)) => {
            format!(
                "{counted} ({}/{} completed)",
                status.completed_tasks, job.total_completions
            )
        }
        Some(Mode::GlobalJob(_)) => {
            let total = status.desired_tasks.saturating_add(status.completed_tasks);
            format!("{counted} ({}/{total} completed)", status.completed_tasks)
        }
        _ if most > 0 => format!("{counted} (max {most} per node)"),
        _ => counted,
    }
}
