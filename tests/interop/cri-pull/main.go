// Command cri-pull asks a containerd for an image as a kubelet does: PullImage over the CRI socket,
// with user and password from an imagePullSecret, which is a Docker config file.
//
//	cri-pull SOCKET IMAGE [DOCKER_CONFIG_JSON]
//
// It prints the reference of the image that was pulled, or the error, and then ends with 1.
package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func main() {
	if len(os.Args) < 3 || len(os.Args) > 4 {
		fmt.Fprintln(os.Stderr, "usage: cri-pull SOCKET IMAGE [DOCKER_CONFIG_JSON]")
		os.Exit(2)
	}
	reference, err := pull(os.Args[1], os.Args[2], os.Args[3:])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(reference)
}

func pull(socket, image string, secrets []string) (string, error) {
	var auth *runtime.AuthConfig
	for _, secret := range secrets {
		var err error
		if auth, err = pullSecret(secret, strings.SplitN(image, "/", 2)[0]); err != nil {
			return "", err
		}
	}
	connection, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return "", err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	answer, err := runtime.NewImageServiceClient(connection).PullImage(ctx, &runtime.PullImageRequest{
		Image: &runtime.ImageSpec{Image: image},
		Auth:  auth,
	})
	if err != nil {
		return "", err
	}
	return answer.ImageRef, nil
}

// pullSecret reads what a secret of type kubernetes.io/dockerconfigjson holds for a registry.
// kubectl create secret docker-registry writes both the pair and its Basic form; a kubelet sends the pair.
func pullSecret(file, registry string) (*runtime.AuthConfig, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var secret struct {
		Auths map[string]struct{ Username, Password, Auth string }
	}
	if err := json.Unmarshal(content, &secret); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	entry, found := secret.Auths[registry]
	if !found {
		return nil, fmt.Errorf("%s has nothing for %s", file, registry)
	}
	if entry.Auth != "" {
		pair, err := base64.StdEncoding.DecodeString(entry.Auth)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		entry.Username, entry.Password, _ = strings.Cut(string(pair), ":")
	}
	return &runtime.AuthConfig{Username: entry.Username, Password: entry.Password}, nil
}
