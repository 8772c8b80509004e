// Command device-plugin offers made-up devices to the kubelet of a test node, so that an extended resource such as
// example.com/npu is allocated by the real device manager instead of being patched into the node's status.
//
// Source of the protocol: the kubelet's device plugin API v1beta1.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

// plugin answers the kubelet; its devices never change and are always healthy.
type plugin struct {
	api.UnimplementedDevicePluginServer
	resource string
	devices  []*api.Device
}

func (p *plugin) GetDevicePluginOptions(context.Context, *api.Empty) (*api.DevicePluginOptions, error) {
	return &api.DevicePluginOptions{}, nil
}

func (p *plugin) ListAndWatch(_ *api.Empty, stream api.DevicePlugin_ListAndWatchServer) error {
	if err := stream.Send(&api.ListAndWatchResponse{Devices: p.devices}); err != nil {
		return err
	}
	<-stream.Context().Done()
	return nil
}

// Allocate tells the container which devices it got, so that a test can see the allocation from inside.
func (p *plugin) Allocate(_ context.Context, request *api.AllocateRequest) (*api.AllocateResponse, error) {
	name := strings.ToUpper(strings.NewReplacer("/", "_", ".", "_", "-", "_").Replace(p.resource))
	response := &api.AllocateResponse{}
	for _, container := range request.ContainerRequests {
		response.ContainerResponses = append(response.ContainerResponses, &api.ContainerAllocateResponse{
			Envs: map[string]string{name + "_DEVICES": strings.Join(container.DevicesIds, ",")},
		})
	}
	return response, nil
}

// serve offers the devices until the kubelet's socket is replaced, which is how a kubelet says that it restarted.
func (p *plugin) serve(folder, endpoint string) error {
	kubelet := filepath.Join(folder, "kubelet.sock")
	before, err := os.Stat(kubelet)
	if err != nil {
		return err
	}
	socket := filepath.Join(folder, endpoint)
	if err := os.RemoveAll(socket); err != nil {
		return err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	api.RegisterDevicePluginServer(server, p)
	go func() { _ = server.Serve(listener) }()
	defer server.Stop()
	if err := p.register(kubelet, endpoint); err != nil {
		return err
	}
	log.Printf("registered %d of %s", len(p.devices), p.resource)
	for {
		time.Sleep(time.Second)
		now, err := os.Stat(kubelet)
		if err != nil || !os.SameFile(before, now) || !now.ModTime().Equal(before.ModTime()) {
			return fmt.Errorf("the kubelet's socket was replaced")
		}
	}
}

func (p *plugin) register(kubelet, endpoint string) error {
	connection, err := grpc.NewClient("unix://"+kubelet, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, err = api.NewRegistrationClient(connection).Register(ctx, &api.RegisterRequest{
		Version: api.Version, Endpoint: endpoint, ResourceName: p.resource,
	})
	return err
}

func main() {
	resource := flag.String("resource", "example.com/npu", "name of the extended resource")
	count := flag.Int("count", 1, "how many devices to offer")
	folder := flag.String("folder", api.DevicePluginPath, "folder of the kubelet's socket")
	flag.Parse()
	offered := &plugin{resource: *resource}
	for i := range *count {
		offered.devices = append(offered.devices, &api.Device{ID: fmt.Sprintf("fake-%d", i), Health: api.Healthy})
	}
	for {
		log.Print(offered.serve(*folder, "fake-"+filepath.Base(*resource)+".sock"))
		time.Sleep(time.Second)
	}
}
