//! What a recording's machine is made of, as a record in the recording: so that a recording can be replayed wherever its images are.

use super::config::VmFile;
use super::process::{self, RunError};
use bytes::Bytes;
use ft_core::message::Profile;
use ft_core::record::Event;
use ft_vmm::machine::{RECIPE_ID, VmConfig};
use thiserror::Error;

/// A machine's recipe.
#[derive(Debug)]
pub struct Recipe(VmFile);

/// A recipe that cannot be followed.
#[derive(Debug, Error)]
pub enum RecipeError {
    /// Not a recipe.
    #[error("the recording's machine is described in a way that this build does not know: {0}")]
    Malformed(String),
    /// An image that is not there.
    #[error(transparent)]
    Image(Box<RunError>),
    /// Something of it has changed.
    #[error(
        "the recording is of another machine: its {field} is {recorded}, and here it would be {here}; \
         use the build and the images that it was made with"
    )]
    Differs {
        /// What differs.
        field: &'static str,
        /// As recorded.
        recorded: String,
        /// As here.
        here: String,
    },
}

impl From<Box<RunError>> for RecipeError {
    fn from(error: Box<RunError>) -> Self {
        Self::Image(error)
    }
}

impl Recipe {
    /// The event that holds the recipe of a machine.
    ///
    /// # Errors
    /// When a path in it is no text.
    pub fn event(file: &VmFile) -> Result<Event, RecipeError> {
        let mut file = file.clone();
        // Where it ran, nobody needs to know who runs it again.
        file.cluster = None;
        let text = toml::to_string(&file).map_err(|error| RecipeError::Malformed(error.to_string()))?;
        Ok(Event::Vendor { id: RECIPE_ID, bytes: Bytes::from(text) })
    }

    /// The recipe in an event, if it holds one.
    pub fn of(event: &Event) -> Option<Result<Self, RecipeError>> {
        let Event::Vendor { id: RECIPE_ID, bytes } = event else { return None };
        let text = String::from_utf8_lossy(bytes);
        Some(toml::from_str(&text).map(Self).map_err(|error| RecipeError::Malformed(error.to_string())))
    }

    /// The machine, which must be the one that was recorded.
    ///
    /// # Errors
    /// [`RecipeError`].
    pub fn vm_config(&self, recorded: &Profile) -> Result<VmConfig, RecipeError> {
        let config = process::vm_config(&self.0).map_err(Box::new)?;
        let here = process::profile(&self.0, &config);
        let fields = [
            ("machine version", recorded.machine.clone(), here.machine),
            ("CPU model", recorded.cpu.clone(), here.cpu),
            ("tick", recorded.tick.clone(), here.tick),
            ("configuration", format!("{:016x}", recorded.config), format!("{:016x}", here.config)),
        ];
        match fields.into_iter().find(|(_, recorded, here)| recorded != here) {
            Some((field, recorded, here)) => Err(RecipeError::Differs { field, recorded, here }),
            None => Ok(config),
        }
    }
}
