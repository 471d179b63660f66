using Google.Protobuf;
using MicroVm.Agent.Cgroups;
using MicroVm.Agent.Containers;
using MicroVm.Agent.Rootfs;
using MicroVm.Agent.Service;
using MicroVm.Agent.Stdio;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Protocol.Agent;
using MicroVm.Tests.Shared.Fuzz;
using MicroVm.Ttrpc;
using Xunit;

namespace MicroVm.Agent.Tests.Fuzz;

/// <summary>
/// The agent's service, asked by requests that no host makes: each is answered, by an error that the handler knows, and the
/// loop goes on. The service has a thread without any rights, so that what it decides to do does not happen.
/// </summary>
public sealed class AgentFuzz
{
    // What .NET says of a mistake in the program, where the handler had to say what is wrong with the request.
    private static readonly string[] Mistakes = ["Object reference", "Index was out", "out of range", "Parameter '", "Sequence contains", "key was not present", "invalid IP address"];

    [Fact]
    public void Requests()
    {
        using Agent agent = new();
        (string Method, IMessage Good)[] requests =
        [
            ("CreateContainer", Create(kinds: 8, withCgroup: true)),
            ("CreateContainer", Create(kinds: 8, withCgroup: false)),
            ("CreateContainer", Create(kinds: 7, withCgroup: false)),
            ("CreateContainer", Create(kinds: 5, withCgroup: false)),
            ("CreateContainer", Create(kinds: 5, withCgroup: false)),
            ("StartContainer", new ContainerId { ContainerId_ = "c" }),
            ("ExecProcess", new ExecProcessRequest { ContainerId = "c", ExecId = "e", Process = Process(), Stdio = new StdioPorts { Stdin = 5 }, Cgroup = "a/b" }),
            ("SignalProcess", new SignalProcessRequest { ContainerId = "c", Signal = 15, All = true }),
            ("WaitProcess", new ProcessId { ContainerId = "c", ExecId = "e" }),
            ("TtyWinResize", new TtyWinResizeRequest { ContainerId = "c", Width = 80, Height = 25 }),
            ("TtyHangUp", new ProcessId { ContainerId = "c", ExecId = "e" }),
            ("AwaitReadiness", new ReadinessRequest { ContainerId = "c" }),
            ("ListProcesses", new ContainerId { ContainerId_ = "c" }),
            ("StatsContainer", new ContainerId { ContainerId_ = "c" }),
            ("UpdateContainer", Update()),
            ("PauseContainer", new ContainerId { ContainerId_ = "c" }),
            ("ResumeContainer", new ContainerId { ContainerId_ = "c" }),
            ("RemoveContainer", new RemoveContainerRequest { ContainerId = "c" }),
            ("ChangeMounts", new ChangeMountsRequest
            {
                Changes =
                {
                    new MountChange { FsTag = "share", Export = "volume", Path = "/a/b", Source = "volume.1" },
                    new MountChange { FsTag = "share", Export = "volume", Path = "/a/b" },
                    new MountChange { FsTag = "share", Export = "volume", Path = "/s", Socket = new HostSocket { Port = 70000, Mode = 438 } },
                },
            }),
            ("ConnectPort", new ConnectPortRequest { Stream = 7, Port = 80 }),
            ("ConnectSocket", new ConnectSocketRequest { Stream = 7, FsTag = "share", Node = 5, Uid = 1000, Gid = 1000 }),
            ("GetOomEvent", new GetOomEventRequest { ContainerId = "c", KnownKills = 1 }),
            ("SetGuestDateTime", new SetGuestDateTimeRequest { Seconds = 1, Nanoseconds = 2 }),
            ("ReseedRandomDev", new ReseedRandomDevRequest { Data = ByteString.CopyFrom(new byte[64]) }),
            ("ConfigureNetwork", Plan(Plan(null))),
            ("ConfigureNetwork", Plan(null)),
        ];
        Fuzzing.Run("agent", random =>
        {
            (string method, IMessage good) = requests[random.Next(requests.Length)];
            byte[] bytes = Spoiling.Bytes(good.ToByteArray(), random);
            IMessage request;
            try
            {
                request = random.Next(8) == 0 ? good : good.Descriptor.Parser.ParseFrom(bytes);
            }
            catch (InvalidProtocolBufferException)
            {
                return;
            }

            string? error = agent.Ask(method, request, Empty.Parser);
            Assert.DoesNotContain(Mistakes, m => error?.Contains(m, StringComparison.Ordinal) == true);
            Assert.Null(agent.Ask("GetGuestDetails", new GetGuestDetailsRequest(), GuestDetails.Parser));
        });
    }

    private static CreateContainerRequest Create(int kinds, bool withCgroup)
    {
        ContainerSpec spec = new()
        {
            Root = new Root { FsTag = "share", FsPath = "rootfs", ReadOnly = true },
            Hostname = "inside",
            Process = Process(),
            Cgroup = withCgroup ? new Cgroup { Path = "a/b", DeviceFilter = ByteString.CopyFrom(new byte[16]), Owner = 7 } : null,
        };
        spec.Cgroup?.Settings.AddRange(Update().Settings);
        for (int kind = 1; kind <= kinds; kind++)
        {
            spec.Namespaces.Add(new Namespace { Kind = (Namespace.Types.Kind)kind });
        }

        spec.Mounts.Add(new Mount { Type = "proc", Source = "proc", Destination = "/proc", Flags = 14, Data = "hidepid=2" });
        spec.Mounts.Add(new Mount { Kind = Mount.Types.Kind.Export, FsTag = "share", Source = "volume", Destination = "/data", SourceIsFile = true });
        spec.Mounts.Add(new Mount { Kind = Mount.Types.Kind.Device, Source = "/dev/null", Destination = "/null", Device = new Device { Type = 'c', Major = 1, Minor = 3 } });
        spec.Mounts.Add(new Mount { Kind = Mount.Types.Kind.GuestBind, Source = "/etc", Destination = "/etc", Flags = 4096, Propagation = { 1 << 18 } });
        spec.Devices.Add(new Device { Path = "/dev/null", Type = 'c', Major = 1, Minor = 3, Mode = 438 });
        spec.UidMappings.Add(new IdMapping { ContainerId = 0, HostId = 1000, Size = 65536 });
        spec.GidMappings.Add(new IdMapping { ContainerId = 0, HostId = 1000, Size = 65536 });
        spec.Sysctls.Add(new Sysctl { Path = "net/ipv4/ip_forward", Value = "1" });
        spec.MaskedPaths.Add("/proc/kcore");
        spec.ReadonlyPaths.Add("/proc/sys");
        spec.TimeOffsets.Add(new TimeOffset { Clock = "monotonic", Seconds = 5 });
        spec.CreateContainerHooks.Add(new Hook { Path = "/bin/true", FsTag = "share", FsPath = "hook", Args = { "true" }, StateBeforePid = "{", StateAfterPid = "}" });
        return new CreateContainerRequest { ContainerId = "c", Spec = spec };
    }

    private static Process Process() => new()
    {
        Args = { "sh", "-c", "true" },
        Env = { "PATH=/bin", "A=b" },
        Cwd = "/",
        User = new User { Uid = 5, Gid = 6, AdditionalGids = { 7, 8 }, Umask = 18 },
        Capabilities = new Capabilities { Effective = 1, Permitted = 3, Ambient = 1 },
        Rlimits = { new Rlimit { Resource = 7, Soft = 10, Hard = 20 } },
        NoNewPrivileges = true,
        SeccompFilter = ByteString.CopyFrom(new byte[24]),
        Personality = 0,
        Scheduler = new Scheduler { Policy = 3, Nice = 2 },
        IoPriority = 4,
        CpuAffinity = ByteString.CopyFrom(1, 0, 0, 0),
    };

    private static UpdateContainerRequest Update() => new()
    {
        ContainerId = "c",
        Settings = { new CgroupSetting { File = "memory.max", Value = "1000000", Optional = true }, new CgroupSetting { File = "cpu.max", Value = "max", Optional = true } },
        RefuseMemoryLimitInUse = 5,
    };

    // No interface that has to be there: drivers are looked for then.
    private static NetworkPlan Plan(NetworkPlan? removed)
    {
        byte[] address = [10, 0, 0, 1];
        ByteString v4 = ByteString.CopyFrom(address), v6 = ByteString.CopyFrom([0xfd, .. new byte[14], 1]);
        NetworkRoute route = new() { Family = 2, Destination = v4, DestinationLength = 32, Table = 254, Type = 1, PreferredSource = v4, Preference = 1 };
        route.NextHops.Add(new NetworkNextHop { Interface = "lo", Gateway = v6, GatewayFamily = 10, OnLink = true });
        NetworkRoute several = route.Clone();
        several.NextHops.Add(new NetworkNextHop { Interface = "lo", Gateway = v4, Hops = 3 });
        several.Metrics.Add(2, 1400);
        return new NetworkPlan
        {
            Interfaces =
            {
                new NetworkInterface
                {
                    Name = "eth9",
                    Mac = ByteString.CopyFrom(2, 1, 2, 3, 4, 5),
                    Removed = true,
                    Addresses = { new NetworkAddress { Local = v4, PrefixLength = 24, Broadcast = v4, Label = "eth9:1", ValidLifetime = 100 } },
                },
            },
            Routes = { route, several, new NetworkRoute { Family = 10, Destination = v6, DestinationLength = 128, Type = 7 } },
            Neighbours = { new NetworkNeighbour { Interface = "lo", Address = v4, LinkLayerAddress = v4, Proxy = true } },
            Rules = { new NetworkRule { Family = 2, Source = v4, SourceLength = 32, Table = 100, Action = 1, Mark = 1, MarkMask = 255, InputInterface = "lo", SuppressPrefix = 1 } },
            Removed = removed,
        };
    }

    /// <summary>The service on a loop of its own, on a thread that is nobody's.</summary>
    private sealed unsafe class Agent : IDisposable
    {
        private const int Nobody = 65534;
        private static readonly TimeSpan Deadline = TimeSpan.FromSeconds(60);
        private readonly string _base = Directory.CreateTempSubdirectory("agent-fuzz").FullName;
        private readonly EventLoop _loop = new();
        private readonly SafeFd _proc = SafeFd.From(Libc.open("/proc", Libc.O_PATH | Libc.O_CLOEXEC, 0), "open", "/proc");
        private readonly AgentService _service;
        private readonly OomWatch _oom;
        private readonly TtrpcServer _server;
        private readonly TtrpcClient _client;
        private readonly Thread _thread;
        private Exception? _failure;

        internal Agent()
        {
            AgentPaths paths = new() { FileSystems = _base + "/fs", Staging = _base + "/staging", Cgroup = _base + "/cgroup", Own = _base + "/own", Nodes = _base + "/nodes" };
            foreach (string directory in (ReadOnlySpan<string>)[_base, paths.FileSystems, paths.Staging, paths.Cgroup, paths.Own, paths.Nodes])
            {
                Directory.CreateDirectory(directory);
                File.SetUnixFileMode(directory, (UnixFileMode)0x1ff);
            }

            SetupContext context = new(paths, new FileSystems(paths, (_, _) => { }), new ProcessTable(), _proc);
            _oom = new OomWatch(_loop);
            _service = new AgentService(_loop, context, new CgroupTree(paths.Cgroup), new StreamTable(), _oom, () => { });
            _server = new TtrpcServer(_loop, _service);
            (SafeFd client, SafeFd server) = UnixSocket.Pair();
            _ = Libc.fcntl(server.Value, Libc.F_SETFL, Libc.O_RDWR | Libc.O_NONBLOCK);
            _server.Serve(server);
            _client = new TtrpcClient(client);
            _thread = new Thread(Run) { IsBackground = true };
            _thread.Start();
        }

        /// <summary>Asks and waits for the answer; its error, or null.</summary>
        internal string? Ask<T>(string method, IMessage request, MessageParser<T> parser)
            where T : IMessage<T>
        {
            try
            {
                _ = _client.Call(AgentClient.ServiceName, method, request, parser, Deadline);
                return null;
            }
            catch (TtrpcException e) when (_client.Broken is null && e.Code != StatusCode.DeadlineExceeded)
            {
                Reap();
                return e.Message.Length > 0 ? e.Message : "an error without a text";
            }
            catch (TtrpcException e)
            {
                throw new InvalidOperationException($"{method} was not answered: {request}", _failure ?? e);
            }
        }

        public void Dispose()
        {
            _loop.Stop();
            _thread.Join();
            _client.Dispose();
            _server.Dispose();
            _oom.Dispose();
            _loop.Dispose();
            _proc.Dispose();
            Directory.Delete(_base, recursive: true);
        }

        // A thread's own, by the system call: libc would change all of the process's threads, and those it starts have the same.
        private void Run()
        {
            try
            {
                if (Libc.geteuid() == 0)
                {
                    Check.Result(Libc.syscall((nint)Libc.SYS_setgroups, 0, 0, 0, 0, 0, 0), "setgroups");
                    Check.Result(Libc.syscall((nint)Libc.SYS_setresgid, Nobody, Nobody, Nobody, 0, 0, 0), "setresgid");
                    Check.Result(Libc.syscall((nint)Libc.SYS_setresuid, Nobody, Nobody, Nobody, 0, 0, 0), "setresuid");
                }

                _loop.Run();
            }
            catch (Exception e)
            {
                _failure = e;
                _server.Dispose();
            }
        }

        private void Reap()
        {
            int status;
            int pid;
            while ((pid = Libc.waitpid(-1, &status, Libc.WNOHANG | Libc.__WALL)) > 0)
            {
                (int ended, int how) = (pid, status);
                _loop.Post(() => _service.OnChildExited(ended, how));
            }
        }
    }
}
