//! Copies of the files that every task is started with: `/etc/passwd` and `/etc/group`.
//!
//! To find a file in an image its layers have to be merged, which takes longer than all the rest
//! of a start. These two are looked up once, while the image is made.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::limits::Limits;
use crate::tree::Tree;

use super::catalog::ImageRecord;
use super::{Store, StoreError, layout};

/// Path in the image, name of the copy.
const FILES: &[(&str, &str)] = &[("etc/passwd", "passwd"), ("etc/group", "group")];

/// What is known of these files, by path. One that is too long or otherwise odd is not listed.
pub(super) type Accounts = BTreeMap<String, Account>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Account {
    /// There is a copy beside the image.
    Copied,
    /// The image has no such file.
    Absent,
}

impl Store {
    /// Copies the files out of a merged tree into the directory of the image being made.
    pub(super) fn copy_accounts(
        &self,
        tree: &Tree,
        layers: &[Digest],
        work: &Path,
        limits: &Limits,
    ) -> Result<Accounts, StoreError> {
        let mut accounts = Accounts::new();
        for (path, copy) in FILES {
            let account = match self.read_from_tree(tree, layers, path, limits) {
                Ok(Some(content)) => {
                    let copy = work.join(copy);
                    let written = layout::create_file(&copy)?.write_all(&content);
                    written.map_err(|source| StoreError::File { action: "write", path: copy, source })?;
                    Account::Copied
                }
                Ok(None) => Account::Absent,
                // Whoever wants to read it gets this error then; the image may do without.
                Err(StoreError::ReadFile { .. }) => continue,
                Err(error) => return Err(error),
            };
            accounts.insert((*path).to_owned(), account);
        }
        Ok(accounts)
    }

    /// A copy's content, where there is one; `None` if the image itself has to be asked.
    pub(super) fn read_account(
        &self,
        id: &Digest,
        record: &ImageRecord,
        path: &str,
    ) -> Result<Option<Option<Vec<u8>>>, StoreError> {
        let path = path.trim_start_matches('/');
        let copy = FILES.iter().find(|(known, _)| *known == path).map(|(_, copy)| copy);
        match (record.accounts.get(path), copy) {
            (Some(Account::Absent), _) => Ok(Some(None)),
            (Some(Account::Copied), Some(copy)) => {
                layout::read_small(&self.layout().image(id).join(copy)).map(Some)
            }
            _ => Ok(None),
        }
    }
}
