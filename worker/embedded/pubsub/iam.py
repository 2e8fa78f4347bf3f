"""google.iam.v1.IAMPolicy for topics and subscriptions: policies are kept and not enforced, for callers are unknown."""

import grpc
from google.iam.v1 import iam_policy_pb2, policy_pb2

from worker.embedded.pubsub.broker import Broker
from worker.embedded.pubsub.refusal import Refused


class IamPolicies:
    """One method an RPC, from request to response; what is refused is raised as `Refused`."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def get_iam_policy(self, request: iam_policy_pb2.GetIamPolicyRequest) -> policy_pb2.Policy:
        """GetIamPolicy: the empty policy until one is set."""
        return self._policy(request.resource)

    async def set_iam_policy(self, request: iam_policy_pb2.SetIamPolicyRequest) -> policy_pb2.Policy:
        """SetIamPolicy. A policy with an etag replaces the one that it was read from alone."""
        current = self._policy(request.resource)
        if request.policy.etag and request.policy.etag != current.etag:
            raise Refused(grpc.StatusCode.ABORTED, "There were concurrent policy changes. Please retry.")
        updated = policy_pb2.Policy()
        updated.CopyFrom(request.policy)
        updated.etag = b"%d" % (int(current.etag) + 1)
        self._broker.iam_policies[request.resource] = updated
        return updated

    async def test_iam_permissions(
        self, request: iam_policy_pb2.TestIamPermissionsRequest
    ) -> iam_policy_pb2.TestIamPermissionsResponse:
        """TestIamPermissions: every caller has every permission."""
        self._policy(request.resource)
        return iam_policy_pb2.TestIamPermissionsResponse(permissions=request.permissions)

    def _policy(self, resource: str) -> policy_pb2.Policy:
        if "/subscriptions/" in resource:
            self._broker.subscription(resource)
        else:
            self._broker.topic(resource)
        return self._broker.iam_policies.get(resource) or policy_pb2.Policy(etag=b"0")
