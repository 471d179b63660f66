using System.Net.Sockets;
using System.Text.Json;
using MicroVm.Tests.Shared.Fuzz;
using MicroVm.Vmm.Control;
using MicroVm.Vmm.Machine;
using MicroVm.Vmm.Startup;
using MicroVm.Vmm.Tests.Boot;
using MicroVm.Vmm.Tests.Machine;
using MicroVm.VmmControl;

namespace MicroVm.Vmm.Tests.Fuzz;

/// <summary>What comes from the VMM's callers: requests on the control socket, the configuration, the command line.</summary>
public sealed class ControlFuzz
{
    private static readonly string[] Requests =
    [
        """{"operation":"Info"}""",
        """{"operation":"Pause"}""",
        """{"operation":"Resume"}""",
        """{"operation":"AddExport","tag":"x","name":"n","readOnly":true,"cache":"Shared"}""",
        """{"operation":"RemoveExport","tag":"x","name":"n"}""",
        """{"operation":"AttachNet","net":0,"interface":{"taps":[{"fd":1}],"mac":"02:00:00:00:00:01"}}""",
        """{"operation":"SetNetLink","net":0,"up":true}""",
        """{"operation":"ResizeMemory","addedMiB":128}""",
        """{"operation":"ResizeVcpus","vcpus":2}""",
    ];

    private const string Config =
        """
        {"kernel":{"path":"/k"},"pvmKernel":{"fd":9},"initrd":{"path":"/i"},"commandLine":"quiet","memoryMiB":128,"hugePages":true,"vcpus":2,"maxVcpus":3,"tables":"MpTable",
        "serial":{"fd":5},"console":{"input":{"fd":6},"output":{"path":"/o"}},"vsock":{"cid":3,"socketPath":"/v","listener":{"fd":7}},"entropy":true,
        "block":[{"file":{"path":"/d"},"readOnly":true}],"pmem":[{"fd":8}],"fs":[{"tag":"t","exports":[{"name":"e","file":{"fd":10},"readOnly":true,"cache":"Shared"}]}],
        "net":[{"interface":{"taps":[{"fd":11}]}}],"control":{"fd":12},"filterSystemCalls":true,"dieWithParent":true}
        """;

    [SkippableFact]
    public void ControlSocket()
    {
        TestMachines.RequireKvm();
        string path = Path.Combine(Path.GetTempPath(), $"vmm-control-{Environment.ProcessId}-{Guid.NewGuid():N}");
        VmmConfig config = TestMachines.Config(ElfBuilder.Kernel(TestMachines.Spin));
        config.MaxVcpus = 3;
        using VirtualMachine machine = MachineBuilder.Build(config);
        using VmmControlServer server = VmmControlServer.Start(FileReference.FromPath(path), machine.Loop, new ControlOperations(machine, () => 7));
        Thread thread = new(() => machine.Run());
        thread.Start();
        try
        {
            Fuzzing.Run("control", random =>
            {
                Converse(path, random);
                Assert.True(thread.IsAlive, "the machine has ended, and no request was to stop it");
            });
        }
        finally
        {
            machine.End(VmmExitCode.Stopped);
            thread.Join();
        }
    }

    [Fact]
    public void Configuration()
    {
        string file = Path.GetTempFileName();
        Fuzzing.Run("vmm-config", random =>
        {
            File.WriteAllBytes(file, Spoiling.Json(Config, random));
            try
            {
                VmmConfig config = ConfigReader.Read(CommandLineOptions.Parse(["--config", file]));
                ConfigValidator.Check(config);
                _ = ProcessSetup.NamedDescriptors(config);
            }
            catch (ConfigException e)
            {
                Assert.DoesNotContain('\n', e.Message);
            }
        });
        File.Delete(file);
    }

    [Fact]
    public void Arguments()
    {
        string[] words = ["--config", "--config-fd", "--config=x", "--config-fd=1", "--config-fd=-1", "--version", "-h", "--", "-", "", "=", "--=", "7", "99999999999", "\0", "--config="];
        Fuzzing.Run("vmm-arguments", random =>
        {
            string[] line = [.. Enumerable.Range(0, random.Next(5)).Select(_ => words[random.Next(words.Length)])];
            try
            {
                CommandLineOptions options = CommandLineOptions.Parse(line);
                Assert.True(options.ShowHelp || options.ShowVersion || options.ConfigPath is not null || options.ConfigFd is >= 0, string.Join(' ', line));
            }
            catch (ConfigException)
            {
                // Refused, with what is wrong.
            }
        });
    }

    private static void Converse(string path, Random random)
    {
        using Socket socket = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        socket.Connect(new UnixDomainSocketEndPoint(path));
        socket.ReceiveTimeout = 30_000;
        for (int lines = random.Next(1, 10); lines > 0; lines--)
        {
            socket.Send(Spoiling.Json(Requests[random.Next(Requests.Length)], random));
            socket.Send("\n"u8);
        }

        if (random.Next(4) == 0)
        {
            return;
        }

        // A line that spoiling broke in two is two requests: an answer to each, and to this one, which is the last.
        socket.Send("{\"operation\":\"Resume\"}\n{\"operation\":\"Info\"}\n{\"operation\":\"Fly\"}\n"u8);
        using NetworkStream stream = new(socket);
        using StreamReader reader = new(stream);
        bool info = false;
        while (true)
        {
            ControlResponse answer = JsonSerializer.Deserialize(reader.ReadLine()!, VmmJson.Default.ControlResponse)!;
            info |= answer.Info is not null;
            if (info && answer.Error?.Contains("operation", StringComparison.Ordinal) == true)
            {
                return;
            }
        }
    }
}
