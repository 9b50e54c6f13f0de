//! An image for a container: there already, or pulled.

use super::{
    engine::Engine,
    plan::{Kind, Plan},
};
use crate::executor::Failure;

/// Makes sure that the image of a task can be used.
///
/// What a tag means is asked of the registry each time, but a registry that says no stops nothing
/// that is there.
pub(super) async fn ensure(engine: &Engine, plan: &Plan) -> Result<(), Failure> {
    let image = &plan.image;
    let local = engine.has_image(&image.text).await?;
    match (image.kind, local) {
        (Kind::Id | Kind::Digest, true) => return Ok(()),
        (Kind::Id, false) => {
            return Err(Failure::Fatal(format!(
                "No such image: {}; by its ID an image cannot be pulled",
                image.text
            )));
        }
        (Kind::Digest, false) | (Kind::Tag, _) => {}
    }
    match engine.pull(image, &plan.registry_auth).await {
        Err(error) if local => {
            tracing::warn!(image = image.text, %error, "cannot pull; the local image is used");
            Ok(())
        }
        pulled => pulled,
    }
}
