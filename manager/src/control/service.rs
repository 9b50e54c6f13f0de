//! Calls about services.

mod defaults;
mod networks;
mod ports;
mod references;
mod status;

use skep_proto::{id, v1::*};
use skep_store::{Error, Tx};

use super::{
    ApiError, Control, filter, require, stored,
    unsupported::{self, service_networks},
    validate,
};

pub(super) use status::statuses;

pub(super) async fn get(
    control: &Control,
    request: GetServiceRequest,
) -> Result<GetServiceResponse, ApiError> {
    let mut service = Service::clone(&*control.get(&request.service_id)?);
    if request.insert_defaults {
        defaults::fill(service.spec_mut());
    }
    Ok(GetServiceResponse {
        service: Some(service),
    })
}

pub(super) async fn list(
    control: &Control,
    request: ListServicesRequest,
) -> Result<ListServicesResponse, ApiError> {
    let snapshot = control.store.snapshot();
    let filters = request.filters.unwrap_or_default();
    let common = filter::Common::from(&filters);
    let services = filter::select::<Service>(&snapshot, common.candidates())
        .into_iter()
        .filter(|service| {
            common.pass(&***service)
                && filter::any(&filters.runtimes, |wanted| {
                    runtime(service.spec().task()).as_ref() == Some(wanted)
                })
        })
        .map(|service| Service::clone(service))
        .collect();
    Ok(ListServicesResponse { services })
}

pub(super) async fn create(
    control: &Control,
    request: CreateServiceRequest,
) -> Result<CreateServiceResponse, ApiError> {
    let spec = request.spec.ok_or_else(ApiError::missing)?;
    validate::service(&spec)?;
    unsupported::service(&spec)?;
    let name = spec.annotations().name.clone();
    let service = control
        .store
        .update(|tx| {
            networks::check(tx, &spec)?;
            ports::check(tx, &spec, None)?;
            references::check(tx, &spec)?;
            let job_status = is_job(&spec).then(|| JobStatus {
                job_iteration: Some(Version::default()),
                last_execution: Some(tx.now()),
            });
            Ok(tx.create(Service {
                id: id::random(),
                spec: Some(spec),
                spec_version: Some(Version::default()),
                job_status,
                ..Default::default()
            })?)
        })
        .await
        .map_err(|err| match err {
            // Clients look for the first words, which are the store's.
            ApiError::Store(Error::NameConflict) => ApiError::AlreadyExists(format!(
                "name conflicts with an existing object: service {name} already exists"
            )),
            err => err,
        })?;
    Ok(CreateServiceResponse {
        service: Some(Service::clone(&service)),
    })
}

pub(super) async fn update(
    control: &Control,
    request: UpdateServiceRequest,
) -> Result<UpdateServiceResponse, ApiError> {
    require(&request.service_id)?;
    let rollback = request.rollback() == update_service_request::Rollback::Previous;
    let version = request.service_version.ok_or_else(ApiError::missing)?;
    let spec = request.spec.ok_or_else(ApiError::missing)?;
    validate::service(&spec)?;
    unsupported::service(&spec)?;
    let service = control
        .store
        .update(|tx| {
            let mut service = stored::<Service>(tx, &request.service_id)?;
            networks::check(tx, &spec)?;
            if spec.endpoint != service.spec().endpoint {
                ports::check(tx, &spec, Some(&service.id))?;
            }
            references::check(tx, &spec)?;
            check_change(service.spec(), &spec)?;
            service.meta_mut().version = Some(version);
            if rollback {
                roll_back(tx, &mut service)?;
            } else {
                service.previous_spec = service.spec.replace(spec);
                service.previous_spec_version = service.spec_version.replace(version);
                service.update_status = None;
            }
            if is_job(service.spec()) {
                let job = service.job_status.get_or_insert_default();
                let iteration = job.job_iteration_mut();
                iteration.index = iteration.index.saturating_add(1);
                job.last_execution = Some(tx.now());
            }
            Ok::<_, ApiError>(tx.update(service)?)
        })
        .await?;
    Ok(UpdateServiceResponse {
        service: Some(Service::clone(&service)),
    })
}

pub(super) async fn remove(
    control: &Control,
    request: RemoveServiceRequest,
) -> Result<RemoveServiceResponse, ApiError> {
    require(&request.service_id)?;
    control
        .store
        .update(|tx| super::remove::<Service>(tx, &request.service_id))
        .await?;
    Ok(RemoveServiceResponse {})
}

/// What no update may change.
fn check_change(old: &ServiceSpec, new: &ServiceSpec) -> Result<(), ApiError> {
    if service_networks(old) != service_networks(new) && old.task().networks == new.task().networks
    {
        return Err(ApiError::unimplemented(
            "networks must be migrated to TaskSpec before being changed",
        ));
    }
    let mode = |spec: &ServiceSpec| spec.mode.as_ref().map(std::mem::discriminant);
    if mode(old) != mode(new) {
        return Err(ApiError::unimplemented(
            "service mode change is not allowed",
        ));
    }
    if old.annotations().name != new.annotations().name {
        return Err(ApiError::unimplemented(
            "renaming services is not supported",
        ));
    }
    Ok(())
}

/// Swaps the current and the previous spec.
fn roll_back(tx: &Tx, service: &mut Service) -> Result<(), ApiError> {
    let Some(previous) = service.previous_spec.take() else {
        return Err(ApiError::FailedPrecondition(format!(
            "service {} does not have a previous spec",
            service.id
        )));
    };
    service.previous_spec = service.spec.replace(previous);
    std::mem::swap(
        &mut service.spec_version,
        &mut service.previous_spec_version,
    );
    service.update_status = Some(UpdateStatus {
        state: update_status::UpdateState::RollbackStarted.into(),
        message: "manually requested rollback".to_owned(),
        started_at: Some(tx.now()),
        completed_at: None,
    });
    Ok(())
}

fn is_job(spec: &ServiceSpec) -> bool {
    use service_spec::Mode;
    matches!(spec.mode, Some(Mode::ReplicatedJob(_) | Mode::GlobalJob(_)))
}

/// The runtime as filters name it.
pub(super) fn runtime(spec: &TaskSpec) -> Option<String> {
    use task_spec::Runtime;
    Some(match spec.runtime.as_ref()? {
        Runtime::Container(_) => "container".to_owned(),
        Runtime::Attachment(_) => "attachment".to_owned(),
        Runtime::Generic(generic) => generic.kind.to_lowercase(),
    })
}

#[cfg(test)]
mod tests;
