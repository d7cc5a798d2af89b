//! The role's life, without a role.

use tokio::task::JoinSet;

use super::finish;
use crate::net::Shutdown;

#[tokio::test]
async fn a_role_without_services_stays_until_it_is_told_to_stop() {
    let (stopper, shutdown) = Shutdown::pair();
    let role = tokio::spawn(async move { finish(&mut JoinSet::new(), shutdown).await });
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!role.is_finished());
    stopper.stop();
    role.await.unwrap().unwrap();
}
