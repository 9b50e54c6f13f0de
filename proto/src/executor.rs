//! Names by which tasks and nodes tell each other what runs what. Docker Swarm does not have them: all its
//! nodes are engines that run any image.

/// Type of the plugin by which a node tells that it is no container engine. Its name says what it is:
/// [`PROCESS`] runs nothing but the image [`PROCESS_IMAGE`]; any other runs everything.
pub const PLUGIN: &str = "Executor";

/// The executor that runs commands of the host.
pub const PROCESS: &str = "process";

/// The image of services that have none: their command runs as a process of the host.
///
/// The wire format demands a syntactically valid image reference of every service. Engines would look
/// for an image of this name.
pub const PROCESS_IMAGE: &str = "process";
