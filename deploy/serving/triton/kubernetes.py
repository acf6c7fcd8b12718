"""Plain Kubernetes that serves the repository with Triton: Deployment, Service, autoscaler."""

from resdeploy.deploy.errors import InputError
from resdeploy.deploy.serving.triton.kserve import check_name, check_storage

# of October 2025; `NAME_preprocess` and `NAME_images` need resdeploy in the image besides
_IMAGE = "nvcr.io/nvidia/tritonserver:25.10-py3"

_MANIFESTS = """\
# {image} has no resdeploy, which {name}_preprocess and {name}_images
# need: RUN pip install resdeploy in an image made from it, or leave those two models out.
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {name}
  labels: {{app.kubernetes.io/name: {name}}}
spec:
  selector:
    matchLabels: {{app.kubernetes.io/name: {name}}}
  template:
    metadata:
      labels: {{app.kubernetes.io/name: {name}}}
    spec:
      automountServiceAccountToken: false
      securityContext: {{runAsNonRoot: true, runAsUser: 1000, fsGroup: 1000}}
      containers:
        - name: triton
          image: {image}
          args:
            - tritonserver
            - "--model-repository={repository}"
            - --exit-on-error=false
            - --strict-readiness=true
          ports:
            - {{name: http, containerPort: 8000}}
            - {{name: grpc, containerPort: 8001}}
            - {{name: metrics, containerPort: 8002}}
          # alive while the models load and warm up, ready when they have
          startupProbe:
            httpGet: {{path: /v2/health/live, port: http}}
            periodSeconds: 5
            failureThreshold: 60
          livenessProbe:
            httpGet: {{path: /v2/health/live, port: http}}
            periodSeconds: 10
          readinessProbe:
            httpGet: {{path: /v2/health/ready, port: http}}
            periodSeconds: 5
          resources:
            requests: {{cpu: "1", memory: 1Gi}}
            limits: {{cpu: "2", memory: 2Gi{gpu}}}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {{drop: [ALL]}}
          volumeMounts:
            - {{name: memory, mountPath: /dev/shm}}
            - {{name: temporary, mountPath: /tmp}}
{mount}      # longer than Triton gives the requests it has accepted
      terminationGracePeriodSeconds: 60
      volumes:
        - {{name: memory, emptyDir: {{medium: Memory, sizeLimit: 256Mi}}}}
        - {{name: temporary, emptyDir: {{}}}}
{volume}---
apiVersion: v1
kind: Service
metadata:
  name: {name}
spec:
  selector: {{app.kubernetes.io/name: {name}}}
  ports:
    - {{name: http, port: 8000, targetPort: http}}
    - {{name: grpc, port: 8001, targetPort: grpc}}
    - {{name: metrics, port: 8002, targetPort: metrics}}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {name}
spec:
  scaleTargetRef: {{apiVersion: apps/v1, kind: Deployment, name: {name}}}
  minReplicas: 1
  maxReplicas: 4
  metrics:
    - type: Resource
      resource: {{name: cpu, target: {{type: Utilization, averageUtilization: 70}}}}
"""

_MOUNT = """\
            - {{name: models, mountPath: /models, subPath: "{path}", readOnly: true}}
"""
_VOLUME = """\
        - name: models
          persistentVolumeClaim: {{claimName: {claim}, readOnly: true}}
"""


def deployment(name: str, storage_uri: str, *, gpu: bool) -> str:
    """The YAML of a Deployment, a Service and a HorizontalPodAutoscaler.

    Args:
        name: of all three.
        storage_uri: of the repository: pvc://CLAIM/PATH is mounted, s3://, gs:// and as:// are read
            by Triton itself, whose credentials are for the reader to add.
        gpu: whether each replica gets an NVIDIA GPU.

    Raises:
        InputError: a name that Kubernetes does not take, or a location that Triton cannot read.
    """
    check_name(name)
    check_storage(storage_uri)
    scheme, _, place = storage_uri.partition("://")
    if scheme not in ("pvc", "s3", "gs", "as"):
        raise InputError(f"storage {storage_uri!r}: Triton reads pvc://, s3://, gs:// and as://")
    mount = volume = ""
    if scheme == "pvc":
        claim, _, path = place.partition("/")
        check_name(claim)
        mount = _MOUNT.format(path=path.strip("/") or ".")
        volume = _VOLUME.format(claim=claim)
    return _MANIFESTS.format(
        name=name,
        image=_IMAGE,
        repository="/models" if scheme == "pvc" else storage_uri,
        mount=mount,
        volume=volume,
        gpu=', nvidia.com/gpu: "1"' if gpu else "",
    )
