# ScDiVa Explorer in a container; DEPLOY.md says how to run it for a lab.
#   CPU:     docker build -t scdiva .
#   NVIDIA:  docker build --build-arg TORCH=cuda -t scdiva:cuda .
FROM python:3.11-slim-bookworm

# "cpu" or "cuda". On x86 the wheel of PyPI brings CUDA along, several GB: the other one has an index of its own.
ARG TORCH=cpu
ARG CPU_INDEX=https://download.pytorch.org/whl/cpu

ENV PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    SCDIVA_HOME=/var/lib/scdiva \
    SCDIVA_DATA_ROOT=/data \
    NUMBA_CACHE_DIR=/var/cache/scdiva \
    MPLCONFIGDIR=/var/cache/scdiva

WORKDIR /opt/scdiva
COPY requirements.txt ./
RUN case "$TORCH" in \
      cpu) grep '^torch==' requirements.txt > torch.txt && pip install --index-url "$CPU_INDEX" -r torch.txt && rm torch.txt ;; \
      cuda) ;; \
      *) echo "TORCH is '$TORCH': choose cpu or cuda" >&2; exit 2 ;; \
    esac && \
    pip install -r requirements.txt

COPY app.py ./
COPY .streamlit .streamlit
COPY assets assets
COPY pages pages
COPY scdiva_core scdiva_core

# Nobody in the container is root, and the code cannot be changed by who runs it.
RUN useradd --system --uid 10001 --no-create-home scdiva && \
    mkdir -p /var/lib/scdiva /var/cache/scdiva /data && \
    chown scdiva /var/lib/scdiva /var/cache/scdiva
USER scdiva
VOLUME ["/var/lib/scdiva"]

EXPOSE 8501
HEALTHCHECK --interval=30s --timeout=5s --start-period=90s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8501/_stcore/health', timeout=4)"]

# Inside its own network the container listens to all; publish the port on 127.0.0.1 and put a proxy before it.
# Options after the image's name are added: --server.allowedHosts=NAME, for one.
ENTRYPOINT ["python", "-m", "streamlit", "run", "app.py", "--server.address=0.0.0.0", "--server.port=8501", "--server.headless=true"]
