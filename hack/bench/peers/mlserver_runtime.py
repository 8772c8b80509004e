"""MLServer: a runtime for ONNX models, for there is none to install. Started with `mlserver start FOLDER`."""

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

from bench.session import open_session


class OnnxModel(MLModel):
    """One ONNX model."""

    async def load(self) -> bool:
        """Open the model."""
        self.session = open_session(self.settings.parameters.uri)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer a request."""
        tensor = NumpyCodec.decode_input(payload.inputs[0])
        result = self.session.run(None, {"x": tensor})[0]
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("y", result)])
