# A static binary on an empty base: nothing to patch, nothing to log in to.
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=devel
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" -o /out/lodestone ./cmd/lodestone \
 && mkdir -p /out/data /out/tmp && chmod 1777 /out/tmp

FROM scratch
# Root certificates for the providers' TLS; time zones are part of the binary.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build --chown=65532:65532 /out/data /data
COPY --from=build /out/tmp /tmp
COPY --from=build /out/lodestone /lodestone
USER 65532:65532
VOLUME /data
ENV LODESTONE_DATA=/data LODESTONE_RULES=/rules
ENTRYPOINT ["/lodestone"]
CMD ["run"]
