"""The sandbox over HTTP, with the APIs of SandboxFusion, Piston and open-instruct, and one of this project.

Needs the extra `serve`: FastAPI, uvicorn, prometheus-client.
"""
