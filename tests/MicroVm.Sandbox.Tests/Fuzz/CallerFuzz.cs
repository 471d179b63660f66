using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using MicroVm.Json;
using MicroVm.Oci;
using MicroVm.Oci.Config;
using MicroVm.Sandbox.Plan;
using MicroVm.Sandbox.Proxies;
using MicroVm.Sandbox.State;
using MicroVm.Sandbox.Vm;
using MicroVm.Tests.Shared.Fuzz;

namespace MicroVm.Sandbox.Tests.Fuzz;

/// <summary>What callers of the runtime hand in, spoilt: planned, or refused with an error that says what is wrong.</summary>
public sealed class CallerFuzz : IDisposable
{
    private readonly TempFolder _folder = new();

    public CallerFuzz() => Directory.CreateDirectory(_folder["rootfs/etc"]);

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void Configuration()
    {
        string[] templates = [.. Directory.GetFiles(Path.Combine(AppContext.BaseDirectory, "Engines"), "*.json").Order().Select(Template), DefaultSpec.Json];
        Fuzzing.Run("config.json", random => Refusable(() =>
        {
            Spec spec = SpecReader.Parse(Spoiling.Json(templates[random.Next(templates.Length)], random), SpecReader.FileName, SpecDocument.Config);
            string rootfs = SpecValidator.Validate(spec, _folder.Path);
            HookRunner.Check(spec.Hooks);
            VmShape shape = VmShape.Resolve(spec, new VmOptions(), hostMemoryMiB: 4096, hostCpus: 4);
            Assert.InRange(shape.MemoryMiB, VmShape.MinMemoryMiB, 4096);
            using ContainerPlan plan = PlanBuilder.Build(spec, "id", _folder.Path, rootfs, []);
            Assert.NotEmpty(plan.Exports);
        }));
    }

    [Fact]
    public void ExecutedProcess()
    {
        string template = JsonNode.Parse(DefaultSpec.Json)!["process"]!.ToJsonString();
        Fuzzing.Run("exec-process", random => Refusable(() =>
        {
            Process process = SpecReader.Parse(Spoiling.Json(template, random), "process", SpecDocument.Process);
            SpecValidator.ValidateProcess(process);
            HomeDirectory.Add(ProcessPlan.Build(process, new Oci.Config.Linux(), []), _folder["rootfs"]);
        }));
    }

    [Fact]
    public void StateFile()
    {
        ContainerStore store = new(_folder["root"]);
        store.Create(new ContainerState
        {
            OciVersion = "1.0.2",
            Id = "c1",
            Bundle = "/b",
            Rootfs = "/b/rootfs",
            Created = DateTimeOffset.UnixEpoch,
            Owner = 0,
            Init = new ProcessIdentity(int.MaxValue, 1),
            Vmm = new ProcessIdentity(int.MaxValue, 1),
            Status = ContainerStatus.Running,
            Annotations = new SortedDictionary<string, string> { ["a"] = "b" },
            Cgroups = new SortedDictionary<string, string> { ["memory"] = "/sys/fs/cgroup/x" },
        });
        string file = Path.Combine(store.FolderOf("c1"), "state.json");
        string template = File.ReadAllText(file);
        Fuzzing.Run("state", random =>
        {
            File.WriteAllBytes(file, Spoiling.Json(template, random));
            foreach (ContainerState state in store.All(_ => { }))
            {
                Assert.False(state.Init.IsAlive());
                Assert.NotNull(state.ToOci(ContainerStatus.Stopped));
            }

            try
            {
                _ = store.Find("c1");
            }
            catch (SandboxException e)
            {
                Assert.Contains("format version", e.Message, StringComparison.Ordinal);
            }
        });
    }

    [Fact]
    public void MessagesBetweenCommandsAndProxies()
    {
        ContainerState state = new()
        {
            OciVersion = "1.0.2",
            Id = "c1",
            Bundle = "/b",
            Rootfs = "/b/rootfs",
            Created = DateTimeOffset.UnixEpoch,
            Owner = 0,
            Init = new ProcessIdentity(int.MaxValue, 1),
            Status = ContainerStatus.Created,
        };
        ProxyRequest request = new()
        {
            Root = "/run/microvm",
            Id = "c1",
            Bundle = "/b",
            Vm = new VmOptions { MemoryMiB = 128, Vcpus = 1, Kernel = "/k", StartTimeoutSeconds = 7 },
            Foreground = true,
            LogFile = "/log",
            Began = 12345,
        };
        ProxyMessage message = new() { Kind = ProxyMessageKind.Created, Level = LogLevel.Warning, Text = "text", State = state };
        Assert.Equal(request.Vm, JsonRecords.Read<ProxyRequest>(JsonRecords.Write(request)).Vm);
        string[] templates = [Encoding.UTF8.GetString(JsonRecords.Write(request)), Encoding.UTF8.GetString(JsonRecords.Write(message))];
        Fuzzing.Run("proxy", random =>
        {
            byte[] spoilt = Spoiling.Json(templates[random.Next(2)], random);
            foreach (Action read in (Action[])[() => JsonRecords.Read<ProxyRequest>(spoilt), () => JsonRecords.Read<ProxyMessage>(spoilt)])
            {
                try
                {
                    read();
                }
                catch (JsonException e)
                {
                    Assert.NotEqual("", e.Message);
                }
                catch (SandboxException e)
                {
                    Assert.Contains("format version", e.Message, StringComparison.Ordinal);
                }
            }
        });
    }

    private static void Refusable(Action attempt)
    {
        try
        {
            attempt();
        }
        catch (Exception e) when (e is SpecException or SandboxException)
        {
            Assert.NotEqual("", e.Message);
        }
    }

    private string Template(string file) => File.ReadAllText(file).Replace("@FILES@", _folder.Path, StringComparison.Ordinal);
}
