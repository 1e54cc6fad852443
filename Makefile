PY := .venv/bin/python
.PHONY: protos
protos:
	$(PY) -m grpc_tools.protoc -Iprotos --python_out=services/wire --mypy_out=services/wire protos/sluice/tfs/v1/*.proto
