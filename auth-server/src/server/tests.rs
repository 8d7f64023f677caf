//! The order of the steps, seen from inside: what voids a token, and what fails none.

use std::{fs, net::IpAddr, path::Path, time::Duration};

use super::*;
use crate::{
    database::refresh_tokens::NewRefreshToken,
    secrets::refresh::RefreshToken,
    sign_in::{
        credentials::Presented,
        request::{Agent, Why},
    },
    users::{Password, verify::Credentials},
};
use berth_shared::{
    action::Actions,
    claims::ClaimSet,
    keys::KeySet,
    rights::{Effect, Rule},
    scope::Scope,
    subject::{Grantee, Subject},
    token,
};
use zeroize::Zeroizing;

const NOW: UnixSeconds = UnixSeconds::new(1_790_000_000);

fn line(name: &str, password: &str) -> String {
    let password = Password::new(Zeroizing::new(password.to_owned())).unwrap();
    format!("{name}:{}\n", password.hash(4).unwrap())
}

async fn server(dir: &Path) -> Arc<AuthServer> {
    fs::write(dir.join("htpasswd"), line("andrew", "one")).unwrap();
    let config = Config {
        htpasswd: dir.join("htpasswd"),
        data: dir.join("auth"),
        refresh_tokens: true,
        ..Config::default()
    };
    let server = AuthServer::open(config, Clock::set(NOW)).await.unwrap();
    let andrew = Grantee::User("andrew".parse().unwrap());
    let pattern = "team/**".parse().unwrap();
    let rule = Rule {
        grantee: andrew,
        pattern,
        effect: Effect::Allow,
        actions: Actions::ALL,
        expires: None,
    };
    server.database.add_rules(&[rule], NOW).await.unwrap();
    server
}

/// A request that asks for nothing and shows nothing.
fn nothing<'a>() -> TokenRequest<'a> {
    TokenRequest {
        service: "berth",
        scopes: &[],
        presented: None,
        client: None,
        is_offline: false,
        agent: Agent::default(),
    }
}

async fn sign_in(server: &Arc<AuthServer>, password: &str) -> Result<ClaimSet, IssueError> {
    let presented = Presented::Password(Credentials {
        user: Zeroizing::new("andrew".to_owned()),
        password: Zeroizing::new(password.to_owned()),
    });
    let scopes = Scope::parse_all(["repository:team/app:*"]);
    let presented = Some(&presented);
    let request = TokenRequest { scopes: &scopes, presented, ..nothing() };
    let token = server.issue(request).await?.token;
    let verifier = token::Verifier {
        issuer: "berth".to_owned(),
        service: "berth".to_owned(),
        foreign_subjects: false,
    };
    let keys = KeySet::from_json(server.keys().jwks().as_bytes()).unwrap();
    Ok(verifier.verify(&keys, &token, UnixSeconds::new(0)).unwrap().claims)
}

async fn is_void(server: &AuthServer, claims: &ClaimSet) -> bool {
    let subject = Subject::from_claim(&claims.sub).unwrap();
    let policy = server.current().await.unwrap().policy;
    claims.counter < policy.revocations.least_for(&subject)
}

#[tokio::test]
async fn a_grant_counts_with_the_next_token_and_voids_none() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path()).await;
    let claims = sign_in(&server, "one").await.unwrap();
    assert_eq!(claims.access[0].actions, ["pull", "push", "delete"]);
    assert_eq!((claims.iat, claims.exp), (NOW, NOW + 900));
    let andrew = Grantee::User("andrew".parse().unwrap());
    server
        .database
        .take_actions(&andrew, &"team/**".parse().unwrap(), Effect::Allow, "push".parse().unwrap())
        .await
        .unwrap();
    assert!(is_void(&server, &claims).await);
    let claims = sign_in(&server, "one").await.unwrap();
    assert_eq!(claims.access[0].actions, ["pull", "delete"]);
    assert!(!is_void(&server, &claims).await);
}

#[tokio::test]
async fn a_new_password_voids_old_tokens_and_gives_good_ones_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path()).await;
    let old = sign_in(&server, "one").await.unwrap();
    fs::write(dir.path().join("htpasswd"), line("andrew", "two")).unwrap();
    let new = sign_in(&server, "two").await.unwrap();
    assert!(is_void(&server, &old).await);
    assert!(!is_void(&server, &new).await);
    let refused = sign_in(&server, "one").await;
    assert!(matches!(refused, Err(IssueError::Refused { known: Some(_), why: Why::Wrong { .. } })));
}

#[tokio::test]
async fn an_edit_made_while_the_server_was_down_voids_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let first = server(dir.path()).await;
    let token = sign_in(&first, "one").await.unwrap();
    let config = first.config().clone();
    drop(first);
    fs::write(dir.path().join("htpasswd"), "# nobody\n").unwrap();
    let server = AuthServer::open(config, Clock::set(NOW)).await.unwrap();
    assert!(is_void(&server, &token).await);
    assert!(sign_in(&server, "one").await.is_err());
}

#[tokio::test]
async fn a_database_that_cannot_be_written_to_fails_no_sign_in() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path()).await;
    let log_in = async |client: Option<IpAddr>, presented: Presented| {
        let presented = Some(&presented);
        let request = TokenRequest { presented, client, is_offline: true, ..nothing() };
        server.issue(request).await.unwrap()
    };
    let password = || {
        Presented::Password(Credentials {
            user: Zeroizing::new("andrew".to_owned()),
            password: Zeroizing::new("one".to_owned()),
        })
    };
    let kept = log_in(None, password()).await.refresh_token.unwrap();
    server.database.refuse_writes().await;
    // From somewhere new, which would be noted.
    let client = Some([192, 0, 2, 1].into());
    let granted = log_in(client, password()).await;
    assert!(granted.refresh_token.is_none());
    let granted = log_in(client, Presented::RefreshToken(kept.clone())).await;
    assert_eq!(granted.refresh_token, Some(kept));
}

#[tokio::test]
async fn a_refresh_token_of_another_credential_is_void_though_it_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path()).await;
    let current = server.current().await.unwrap();
    let subject = Subject::User("andrew".parse().unwrap());
    let own = current.users.hashes.get(&"andrew".parse().unwrap()).unwrap();
    let own = own.fingerprint(&"andrew".parse().unwrap());
    for (credential, is_good) in [(own, true), ("of another password".to_owned(), false)] {
        let token = RefreshToken::generate().unwrap();
        let new = NewRefreshToken {
            hash: token.hash(),
            subject: subject.clone(),
            credential,
            client: String::new(),
            sequence: 0,
        };
        assert!(
            server
                .database
                .keep_refresh_token(&new, NOW, UnixSeconds::new(0))
                .await
                .unwrap()
                .is_some()
        );
        let refresh_tokens = server.sign_in.refresh_tokens.as_ref().unwrap();
        let shown = refresh_tokens.sign_in(&current, token.expose()).await;
        match shown {
            Ok(signed_in) => assert!(is_good && signed_in.subject == subject),
            Err(refused) => {
                let is_wrong = matches!(
                    refused,
                    IssueError::Refused { known: Some(_), why: Why::Wrong { .. } }
                );
                assert!(!is_good && is_wrong);
            }
        }
    }
}

#[tokio::test]
async fn a_moved_database_means_no_token_for_anybody() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path()).await;
    sign_in(&server, "one").await.unwrap();
    fs::rename(dir.path().join("auth/auth.db"), dir.path().join("elsewhere")).unwrap();
    assert!(matches!(sign_in(&server, "one").await, Err(IssueError::Database(_))));
    let scopes = Scope::parse_all(["repository:public:pull"]);
    let anonymous = TokenRequest { scopes: &scopes, ..nothing() };
    assert!(server.issue(anonymous).await.is_err());
    assert!(server.ready().await.is_err());
    assert_eq!(server.config().token_life(), Duration::from_secs(900));
}
