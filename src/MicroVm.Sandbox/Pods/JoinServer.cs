using System.Text.Json;
using MicroVm.Json;
using MicroVm.Linux;
using MicroVm.Oci;
using MicroVm.Oci.Config;
using MicroVm.Protocol.Agent;
using MicroVm.Sandbox.HostCgroups;
using MicroVm.Sandbox.Proxies;
using MicroVm.Sandbox.State;
using MicroVm.Sandbox.Streams;
using MicroVm.Sandbox.Vm;
using MicroVm.Ttrpc;
using HostSocket = MicroVm.Sandbox.Vm.HostSocket;

namespace MicroVm.Sandbox.Pods;

/// <summary>The sandbox process's side of a container that joins its VM, from the command's request to the container's end.</summary>
internal static class JoinServer
{
    private const int MaxDocument = 64 << 20;

    // Of one export: itself, its copies for followers and the VMM; and what else a container takes.
    private const ulong DescriptorsPerFile = 4, OtherDescriptors = 64;
    private static ulong s_descriptors = 512;

    /// <summary>Serves the command.</summary>
    /// <param name="command">Its connection, which has been told to send descriptors; owned.</param>
    /// <param name="count">How many it will send.</param>
    /// <param name="sandbox">The VM.</param>
    /// <param name="store">Keeps the state.</param>
    /// <param name="join">Takes commands that come to the new container's control socket to join.</param>
    /// <param name="endSandbox">As for <see cref="ContainerHost.WaitForEnd"/>.</param>
    internal static void Serve(LineChannel command, int count, PodSandbox sandbox, ContainerStore store, Action<LineChannel, int> join, Action<bool> endSandbox)
    {
        SafeFd socket = command.Release();
        List<SafeFd> files = [];
        try
        {
            OpenFileLimit.Need(Interlocked.Add(ref s_descriptors, ((ulong)Math.Clamp(count, 0, JoinFiles.Most) * DescriptorsPerFile) + OtherDescriptors));
            JoinFiles.Receive(socket, count, files);
            JoinRequest request = JsonRecords.Read<JoinRequest>(Read(files[JoinFiles.Document]));
            ProxyRequest proxyRequest = request.Request with { Configuration = Read(files[JoinFiles.Configuration]) };
            CreateContainerRequest create = CreateContainerRequest.Parser.ParseFrom(Read(files[JoinFiles.Plan]));
            using ProxyCaller caller = new(socket, proxyRequest);
            using ContainerHost host = new(
                proxyRequest, caller, new ProxyLink(files[JoinFiles.Proxy]),
                new ProcessStreams(files[JoinFiles.Input], files[JoinFiles.Output], files[JoinFiles.Error], proxyRequest.HasTerminalFd ? files[^1] : null), join);
            if (Create(host, request, proxyRequest, create, caller, files, sandbox, store, endSandbox))
            {
                host.WaitForEnd(endSandbox);
            }
        }
        catch (Exception e) when (e is SandboxException or LinuxException or JsonException or Google.Protobuf.InvalidProtocolBufferException)
        {
            // The command sees its connection end.
            files.ForEach(f => f.Dispose());
        }
        finally
        {
            socket.Dispose();
        }
    }

    private static bool Create(
        ContainerHost host, JoinRequest request, ProxyRequest proxyRequest, CreateContainerRequest create, ProxyCaller caller, List<SafeFd> files,
        PodSandbox sandbox, ContainerStore store, Action<bool> endSandbox)
    {
        List<Export> exports = [];
        List<HostSocket> sockets = [];
        string? failure;
        try
        {
            int at = JoinFiles.First;
            SafeFd next() => at < files.Count ? files[at++] : throw new SandboxException("the command sent too few descriptors");
            request.Exports.ForEach(e => exports.Add(e.ToExport(next)));
            request.Sockets.ForEach(path => sockets.Add(new HostSocket((uint)sockets.Count, next(), path)));
            Spec spec = SpecReader.ParseBundle(proxyRequest.Configuration);
            HostCgroup cgroup = new(request.State.Cgroups ?? []) { UnifiedMount = request.UnifiedMount };
            void Warn(string text) => caller.Log(LogLevel.Warning, text);
            ContainerState state = request.State with { VmFolder = sandbox.Folder, VmMemoryMiB = sandbox.Size.MemoryMiB, VmVcpus = sandbox.Size.Vcpus };
            host.TakeId(state, store, cgroup, state.Init);
            HostLimits.ApplyToMember(cgroup, spec.Linux?.Resources, Warn);
            cgroup.Move(state.Init.Pid);
            host.Begin(sandbox, store, spec);
            host.Container.Join(create, exports, sockets);
            failure = host.HandOver(store, () => { }) ? null : "";
        }
        catch (Exception e) when (e is SandboxException or SpecException or TtrpcException or LinuxException)
        {
            failure = e.Message;
        }

        exports.ForEach(e => e.Dispose());
        sockets.ForEach(s => s.Dispose());
        if (failure is not null)
        {
            host.Fail(failure.Length > 0 ? failure : null, endSandbox);
        }

        return failure is null;
    }

    private static byte[] Read(SafeFd file)
    {
        using SafeFd owned = file;
        return HostFile.ReadToEnd(owned, MaxDocument, "request to join");
    }
}
