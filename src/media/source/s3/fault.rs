//! What a request to S3 that brought no object means. Codes decide, where there is one, and the status else.
//!
//! Only codes are shown, never S3's sentences: they repeat what was sent, keys and signatures among it.

use std::error::Error;
use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use super::super::answer::{Asked, Failure, Head, meaning};
use crate::media::{MediaError, MediaErrorKind};
use crate::provider::failure;
use crate::provider::http::chain;

/// Credentials or a clock that no object would be given for.
const SETUP: [&str; 10] = [
    "AuthorizationHeaderMalformed",
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidAccessKeyId",
    "InvalidSecurity",
    "InvalidToken",
    "NotSignedUp",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
];
/// What passes, whatever its status.
const PASSING: [&str; 5] = ["InternalError", "RequestTimeout", "ServiceUnavailable", "SlowDown", "Throttling"];

/// The meaning of a failed request; that an object is unchanged comes as one too.
pub(super) fn of<E>(error: &SdkError<E, HttpResponse>, asked: Asked<'_>) -> Result<Head, Failure>
where
    E: Error + ProvideErrorMetadata + 'static,
{
    if let Some(problem) = credentials(error) {
        return Err(problem);
    }
    if matches!(error, SdkError::ConstructionFailure(_)) {
        let message =
            format!("a request to S3 cannot be made ({}); check the AWS_* variables and the profile", chain(error));
        return Err(setup(message));
    }
    let Some(response) = error.raw_response() else { return Err(Failure::again(chain(error))) };
    let status = response.status().as_u16();
    let header = |name: &str| response.headers().get(name);
    let head = judge(status, error.code().unwrap_or_default(), header("x-amz-bucket-region"), asked);
    head.map_err(|failure| match failure {
        Failure::Again { message, .. } => {
            let seconds = header("retry-after").and_then(|seconds| seconds.trim().parse().ok());
            Failure::Again { message, hint: seconds.map(Duration::from_secs) }
        }
        other => other,
    })
}

fn judge(status: u16, code: &str, region: Option<&str>, asked: Asked<'_>) -> Result<Head, Failure> {
    let known = |codes: &[&str]| codes.contains(&code);
    let named = failure::words(code);
    // A signature for another region is told with the code of a bad one, and with the right region.
    let elsewhere = matches!(status, 301 | 307) || (code == "AuthorizationHeaderMalformed" && region.is_some());
    if elsewhere {
        let region = region.map_or_else(|| "that region".to_owned(), failure::words);
        let message = format!("its bucket is in another region (status {status}); set AWS_REGION to {region}");
        return Err(Failure::last(MediaErrorKind::Denied, message));
    }
    if known(&SETUP) {
        return Err(setup(format!(
            "S3 does not take these credentials ({named}); check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, \
             AWS_SESSION_TOKEN, AWS_REGION, the profile or the role, and this machine's clock"
        )));
    }
    match status {
        304 if matches!(asked, Asked::IfChanged(_)) => Ok(Head::Unchanged),
        412 => Err(Failure::Restart { message: "it changed on its server while it was read (status 412)".to_owned() }),
        _ if known(&PASSING) => Err(Failure::again(format!("its server fails (status {status}, {named})"))),
        _ => Err(meaning(status, &named, None)),
    }
}

/// Credentials that are not there. A source of them that does not answer may.
fn credentials(error: &(dyn Error + 'static)) -> Option<Failure> {
    let mut cause = Some(error);
    while let Some(inner) = cause {
        match inner.downcast_ref::<CredentialsError>() {
            Some(CredentialsError::ProviderTimedOut(_)) => {
                return Some(Failure::again("the source of the credentials for S3 does not answer in time"));
            }
            Some(problem) => {
                return Some(setup(format!(
                    "there are no credentials for S3 ({}); set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, \
                     or give this machine a role",
                    failure::words(&problem.to_string())
                )));
            }
            None => cause = inner.source(),
        }
    }
    None
}

fn setup(message: String) -> Failure {
    Failure::Final(MediaError::new(MediaErrorKind::Setup, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    const REST: Asked<'_> = Asked::Rest(5, "\"a\"");

    #[test]
    fn an_answer_without_an_object_is_judged_by_its_code_and_then_by_its_status() {
        use MediaErrorKind::{Denied, NotFound, Setup, Unavailable};
        for (status, code, kind) in [
            (404, "NoSuchKey", Some(NotFound)),
            (404, "NoSuchBucket", Some(NotFound)),
            (404, "", Some(NotFound)),
            (403, "AccessDenied", Some(Denied)),
            (403, "InvalidObjectState", Some(Denied)),
            (403, "SignatureDoesNotMatch", Some(Setup)),
            (403, "InvalidAccessKeyId", Some(Setup)),
            (403, "RequestTimeTooSkewed", Some(Setup)),
            (400, "ExpiredToken", Some(Setup)),
            (400, "InvalidArgument", Some(Denied)),
            (400, "RequestTimeout", None),
            (400, "AuthorizationHeaderMalformed", Some(Setup)),
            (301, "PermanentRedirect", Some(Denied)),
            (304, "", Some(Unavailable)),
            (503, "SlowDown", None),
            (500, "InternalError", None),
            (429, "", None),
            (204, "", Some(Unavailable)),
        ] {
            match judge(status, code, None, REST) {
                Err(Failure::Final(error)) => assert_eq!(Some(error.kind), kind, "{status} {code}"),
                Err(Failure::Again { .. }) => assert_eq!(None, kind, "{status} {code}"),
                other => panic!("{status} {code}: {other:?}"),
            }
        }
        for status in [412, 416] {
            assert!(matches!(judge(status, "", None, REST), Err(Failure::Restart { .. })), "{status}");
        }
        assert_eq!(judge(304, "", None, Asked::IfChanged("\"a\"")), Ok(Head::Unchanged));
    }

    #[test]
    fn a_bucket_of_another_region_says_which() {
        for (status, code) in [(301, "PermanentRedirect"), (400, "AuthorizationHeaderMalformed")] {
            let Err(Failure::Final(error)) = judge(status, code, Some("eu-west-1"), REST) else { panic!("{code}") };
            assert_eq!(error.kind, MediaErrorKind::Denied, "{code}");
            assert!(error.message.contains("set AWS_REGION to eu-west-1"), "{error}");
        }
    }
}
