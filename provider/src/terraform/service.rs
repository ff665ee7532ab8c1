//! The protocol's calls: takes them apart, and answers with diagnostics whatever happens.
//!
//! A gRPC error would come out as "plugin did not respond": none is ever sent, not even of a panic.

use std::collections::HashMap;
use std::sync::Arc;

use schemas::plugin_protocol::tfplugin6 as pb;
use schemas::plugin_protocol::tfplugin6::provider_server::Provider;
use tonic::{Request, Response, Status};

use super::catalog::{self, MIGRATION_TYPE, PREFLIGHT_TYPE};
use super::diagnostic::Problems;
use super::schema::Block;
use super::session::Session;
use super::value::{Malformed, Value};
use super::{configuration, data_source, diagnostic, resource};

/// The service.
#[derive(Debug, Default)]
pub(crate) struct Service {
    session: Arc<Session>,
}

/// An answer that can carry diagnostics.
trait Answer: Default + Send + 'static {
    fn diagnostics(&mut self) -> &mut Problems;

    fn carrying(problems: Problems) -> Self {
        let mut answer = Self::default();
        *answer.diagnostics() = problems;
        answer
    }
}

macro_rules! answers {
    ($($answer:ident),*) => {$(
        impl Answer for pb::$answer {
            fn diagnostics(&mut self) -> &mut Problems {
                &mut self.diagnostics
            }
        }
    )*};
}

answers!(
    GetProviderSchemaResponse,
    ValidateProviderConfigResponse,
    ValidateResourceConfigResponse,
    ValidateDataResourceConfigResponse,
    UpgradeResourceStateResponse,
    ConfigureProviderResponse,
    ReadResourceResponse,
    PlanResourceChangeResponse,
    ApplyResourceChangeResponse,
    ImportResourceStateResponse,
    MoveResourceStateResponse,
    ReadDataSourceResponse
);

/// Runs a call in a task of its own, so that a panic ends the call and not the plugin.
async fn answer<T: Answer>(
    call: impl Future<Output = Result<T, Problems>> + Send + 'static,
) -> Result<Response<T>, Status> {
    let answer = match tokio::spawn(call).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(problems)) => T::carrying(problems),
        Err(failed) => {
            let panic = failed.try_into_panic().ok();
            let text = panic.as_deref().and_then(|panic| {
                panic
                    .downcast_ref::<String>()
                    .map(String::as_str)
                    .or_else(|| panic.downcast_ref::<&str>().copied())
            });
            let detail = format!(
                "The provider met a state that it was not built for: {}. Report it with the \
                 output of TF_LOG=debug.",
                text.unwrap_or("no more is known")
            );
            T::carrying(vec![diagnostic::error("the provider failed [CUT0033]", detail)])
        }
    };
    Ok(Response::new(answer))
}

impl From<Malformed> for pb::Diagnostic {
    fn from(malformed: Malformed) -> Self {
        diagnostic::error(malformed.to_string(), "Report it with the output of TF_LOG=debug.")
    }
}

fn value(encoded: Option<&pb::DynamicValue>) -> Result<Value, Problems> {
    Value::decode(encoded).map_err(|malformed| vec![malformed.into()])
}

fn known_type(name: &str) -> Result<(), Problems> {
    if name == MIGRATION_TYPE {
        return Ok(());
    }
    Err(vec![diagnostic::error(format!("the provider has no resource {name}"), "")])
}

/// A stored state in the present schema: what it does not have is null, what it has no more is
/// gone.
fn upgraded(block: &Block, stored: Option<&pb::RawState>) -> Result<pb::DynamicValue, Problems> {
    let json = stored.map(|stored| stored.json.as_slice()).unwrap_or_default();
    let state = Value::of_json_bytes(json).map_err(|malformed| vec![malformed.into()])?;
    Ok(block.take(&state).encode())
}

#[tonic::async_trait]
impl Provider for Service {
    async fn get_provider_schema(
        &self,
        _: Request<pb::GetProviderSchemaRequest>,
    ) -> Result<Response<pb::GetProviderSchemaResponse>, Status> {
        answer(async {
            Ok(pb::GetProviderSchemaResponse {
                provider: Some(catalog::provider().to_schema()),
                resource_schemas: HashMap::from([(
                    MIGRATION_TYPE.to_owned(),
                    catalog::migration().to_schema(),
                )]),
                data_source_schemas: HashMap::from([
                    (MIGRATION_TYPE.to_owned(), catalog::migration_data().to_schema()),
                    (PREFLIGHT_TYPE.to_owned(), catalog::preflight_data().to_schema()),
                ]),
                server_capabilities: Some(pb::ServerCapabilities {
                    plan_destroy: true,
                    get_provider_schema_optional: true,
                    move_resource_state: true,
                }),
                ..Default::default()
            })
        })
        .await
    }

    async fn validate_provider_config(
        &self,
        request: Request<pb::ValidateProviderConfigRequest>,
    ) -> Result<Response<pb::ValidateProviderConfigResponse>, Status> {
        answer(async move {
            let config = value(request.into_inner().config.as_ref())?;
            Ok(Answer::carrying(configuration::of_provider(&config)))
        })
        .await
    }

    async fn validate_resource_config(
        &self,
        request: Request<pb::ValidateResourceConfigRequest>,
    ) -> Result<Response<pb::ValidateResourceConfigResponse>, Status> {
        answer(async move {
            let request = request.into_inner();
            known_type(&request.type_name)?;
            let write_only = request
                .client_capabilities
                .is_some_and(|client| client.write_only_attributes_allowed);
            Ok(Answer::carrying(configuration::of_migration(
                &value(request.config.as_ref())?,
                write_only,
            )))
        })
        .await
    }

    async fn validate_data_resource_config(
        &self,
        request: Request<pb::ValidateDataResourceConfigRequest>,
    ) -> Result<Response<pb::ValidateDataResourceConfigResponse>, Status> {
        answer(async move {
            let request = request.into_inner();
            let config = value(request.config.as_ref())?;
            Ok(Answer::carrying(configuration::of_data_source(&request.type_name, &config)))
        })
        .await
    }

    async fn upgrade_resource_state(
        &self,
        request: Request<pb::UpgradeResourceStateRequest>,
    ) -> Result<Response<pb::UpgradeResourceStateResponse>, Status> {
        answer(async move {
            let request = request.into_inner();
            known_type(&request.type_name)?;
            let state = upgraded(&catalog::migration(), request.raw_state.as_ref())?;
            Ok(pb::UpgradeResourceStateResponse {
                upgraded_state: Some(state),
                diagnostics: Vec::new(),
            })
        })
        .await
    }

    async fn configure_provider(
        &self,
        request: Request<pb::ConfigureProviderRequest>,
    ) -> Result<Response<pb::ConfigureProviderResponse>, Status> {
        let session = Arc::clone(&self.session);
        answer(async move {
            let config = value(request.into_inner().config.as_ref())?;
            let diagnostics = session.configure(&config).diagnostics;
            Ok(Answer::carrying(diagnostics.iter().map(diagnostic::checked).collect()))
        })
        .await
    }

    async fn read_resource(
        &self,
        request: Request<pb::ReadResourceRequest>,
    ) -> Result<Response<pb::ReadResourceResponse>, Status> {
        let session = Arc::clone(&self.session);
        answer(async move {
            let request = request.into_inner();
            known_type(&request.type_name)?;
            let state = resource::read(&session, &value(request.current_state.as_ref())?).await?;
            Ok(pb::ReadResourceResponse {
                new_state: Some(state.encode()),
                private: request.private,
                diagnostics: Vec::new(),
            })
        })
        .await
    }

    async fn plan_resource_change(
        &self,
        request: Request<pb::PlanResourceChangeRequest>,
    ) -> Result<Response<pb::PlanResourceChangeResponse>, Status> {
        let session = Arc::clone(&self.session);
        answer(async move {
            let request = request.into_inner();
            known_type(&request.type_name)?;
            let (prior, config) =
                (value(request.prior_state.as_ref())?, value(request.config.as_ref())?);
            let before = resource::Note::decode(&request.prior_private);
            let planned = resource::plan(&session, &prior, &config, &before).await?;
            Ok(pb::PlanResourceChangeResponse {
                planned_state: Some(planned.state.encode()),
                requires_replace: planned
                    .replaced_for
                    .iter()
                    .map(|path| diagnostic::attribute_path(path))
                    .collect(),
                planned_private: planned.note.encode(),
                diagnostics: planned.diagnostics,
            })
        })
        .await
    }

    async fn apply_resource_change(
        &self,
        request: Request<pb::ApplyResourceChangeRequest>,
    ) -> Result<Response<pb::ApplyResourceChangeResponse>, Status> {
        let session = Arc::clone(&self.session);
        answer(async move {
            let request = request.into_inner();
            known_type(&request.type_name)?;
            let change = resource::Change {
                prior: value(request.prior_state.as_ref())?,
                planned: value(request.planned_state.as_ref())?,
                config: value(request.config.as_ref())?,
                note: resource::Note::decode(&request.planned_private),
            };
            let applied = resource::apply(&session, change).await;
            Ok(pb::ApplyResourceChangeResponse {
                new_state: Some(applied.state.encode()),
                private: Vec::new(),
                diagnostics: applied.diagnostics,
            })
        })
        .await
    }

    async fn import_resource_state(
        &self,
        request: Request<pb::ImportResourceStateRequest>,
    ) -> Result<Response<pb::ImportResourceStateResponse>, Status> {
        let session = Arc::clone(&self.session);
        answer(async move {
            let request = request.into_inner();
            known_type(&request.type_name)?;
            let state = resource::import(&session, &request.id).await?;
            Ok(pb::ImportResourceStateResponse {
                imported_resources: vec![pb::ImportedResource {
                    type_name: request.type_name,
                    state: Some(state.encode()),
                    private: Vec::new(),
                }],
                diagnostics: Vec::new(),
            })
        })
        .await
    }

    async fn move_resource_state(
        &self,
        request: Request<pb::MoveResourceStateRequest>,
    ) -> Result<Response<pb::MoveResourceStateResponse>, Status> {
        answer(async move {
            let request = request.into_inner();
            known_type(&request.target_type_name)?;
            // The same resource of this provider under another address; no other has anything of
            // use.
            known_type(&request.source_type_name)?;
            let state = upgraded(&catalog::migration(), request.source_state.as_ref())?;
            Ok(pb::MoveResourceStateResponse { target_state: Some(state), ..Default::default() })
        })
        .await
    }

    async fn read_data_source(
        &self,
        request: Request<pb::ReadDataSourceRequest>,
    ) -> Result<Response<pb::ReadDataSourceResponse>, Status> {
        let session = Arc::clone(&self.session);
        answer(async move {
            let request = request.into_inner();
            let config = value(request.config.as_ref())?;
            let (state, diagnostics) =
                data_source::read(&session, &request.type_name, &config).await?;
            Ok(pb::ReadDataSourceResponse { state: Some(state.encode()), diagnostics })
        })
        .await
    }

    async fn stop_provider(
        &self,
        _: Request<pb::StopProviderRequest>,
    ) -> Result<Response<pb::StopProviderResponse>, Status> {
        self.session.stop();
        Ok(Response::new(pb::StopProviderResponse::default()))
    }
}

#[cfg(test)]
mod tests {
    use schemas::plugin_protocol::tfplugin6 as pb;

    #[tokio::test]
    async fn a_panic_is_a_diagnostic() {
        let answered =
            super::answer::<pb::ReadResourceResponse>(async { panic!("the state is no object") })
                .await;
        let answer = answered.expect("never an error of the transport").into_inner();
        assert!(answer.diagnostics[0].detail.contains("the state is no object"), "{answer:?}");
    }
}
