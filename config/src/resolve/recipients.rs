//! The recipients of the tree's age values: each a whole age recipient, so that a slip of the hand is found before it encrypts
//! a value that nobody can open.

use crate::diagnostic::Code;
use crate::secret::{RecipientError, check_recipient};
use crate::tree::Document;
use crate::written::recipients::Recipients;

/// The recipients; none where the tree has no secrets.toml.
pub(crate) fn recipients(document: Option<&Document<Recipients>>) -> Option<Vec<String>> {
    let Some(Document { sheet, written }) = document else { return Some(Vec::new()) };
    let list = written.as_ref()?.recipients.as_ref()?;
    let mut valid = true;
    let mut recipients = Vec::new();
    if list.value.is_empty() {
        let message = "`recipients` is empty, so nothing could be encrypted for this tree";
        let hint = "write the recipient that `forge secret keygen` printed on the daemon's host".to_owned();
        sheet.error(list.span, Code::BadValue, message, Some(hint));
        valid = false;
    }
    for one in &list.value {
        match check_recipient(&one.value) {
            Ok(()) if recipients.contains(&one.value) => {
                sheet.warning(one.span, Code::Unused, "this recipient stands twice in `recipients`", None);
            }
            Ok(()) => recipients.push(one.value.clone()),
            Err(error) => {
                if error == RecipientError::Identity {
                    sheet.hide(one.span);
                }
                sheet.error(one.span, Code::BadValue, error.to_string(), Some(error.hint().to_owned()));
                valid = false;
            }
        }
    }
    valid.then_some(recipients)
}
