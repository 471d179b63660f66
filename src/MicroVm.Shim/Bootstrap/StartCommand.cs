using System.Collections;
using System.Globalization;
using System.Text;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Oci;
using MicroVm.Sandbox;
using MicroVm.Shim.Api;

namespace MicroVm.Shim.Bootstrap;

/// <summary>
/// <c>start</c>: binds the socket and starts this executable again as its server, which inherits the listening socket as descriptor 3
/// and nothing else, so that containerd's reading of our output ends with this process. Prints the address. A further container of
/// a pod gets the address of the sandbox's shim.
/// </summary>
internal static class StartCommand
{
    /// <summary>Name of the file in the bundle by which containerd 1.6 finds the shim again after a restart.</summary>
    internal const string AddressFile = "address";

    private const uint FileMode = 0b110_000_000;
    private const int MaxScore = 1000;

    /// <summary>Runs the command; the working folder is the bundle.</summary>
    /// <exception cref="SandboxException">The pod's sandbox has no shim, or the server cannot be started.</exception>
    internal static int Run(ShimArguments arguments)
    {
        BootstrapParams? parameters = BootstrapInput.Read(StandardOutput.ReadInput(), arguments);
        Grouping grouping = Grouping.Of(
            SpecReader.ReadBundle(Environment.CurrentDirectory), arguments.Id, ShimFolders.Options(arguments.Namespace, arguments.Debug).Root);
        ShimSocket socket = ShimSocket.Of(arguments.Address, arguments.Namespace, grouping.Group);
        if (!socket.IsServed())
        {
            if (grouping.Joins)
            {
                throw new SandboxException($"container {arguments.Id}: its pod's sandbox {grouping.Group} has no shim that answers at {socket.Path}");
            }

            StartServer(arguments, parameters, socket);
        }

        HostFile.Replace(Path.Combine(Environment.CurrentDirectory, AddressFile), Encoding.UTF8.GetBytes(socket.Address), FileMode);
        StandardOutput.Write(BootstrapInput.Answer(parameters, socket.Address));
        return 0;
    }

    private static void StartServer(ShimArguments arguments, BootstrapParams? parameters, ShimSocket socket)
    {
        using SafeFd listener = socket.Listen();
        try
        {
            using SafeFd nothing = SafeFd.From(Libc.open("/dev/null", Libc.O_RDWR | Libc.O_CLOEXEC, 0), "open", "/dev/null");
            LeaveMountNamespace();
            Spawn spawn = new()
            {
                File = Environment.ProcessPath!,
                Arguments = ArgumentsOf(arguments, parameters),
                Environment = EnvironmentFor(parameters),
                NewSession = true,
            };
            spawn.Add(nothing);
            spawn.Add(nothing);
            spawn.Add(nothing);
            _ = spawn.Add(listener);
            using SpawnedProcess server = spawn.Start();
            AdjustOutOfMemoryScore(server.Pid);
        }
        catch
        {
            socket.Remove();
            throw;
        }
    }

    /// <summary>
    /// The server's mounts are in a namespace of its own, which is gone with it however it ends. What the host mounts later is seen
    /// there, too.
    /// </summary>
    private static void LeaveMountNamespace()
    {
        Check.Result(Libc.unshare(Libc.CLONE_NEWNS), "unshare", "CLONE_NEWNS");
        Check.Result(Libc.mount(null, "/", null, (nuint)(Libc.MS_REC | Libc.MS_SLAVE), null), "mount", "/ slave");
    }

    private static List<string> ArgumentsOf(ShimArguments arguments, BootstrapParams? parameters)
    {
        List<string> args = [Environment.ProcessPath!, "-namespace", arguments.Namespace, "-id", arguments.Id, "-address", arguments.Address];
        const int debug = -4;
        if (arguments.Debug || parameters?.LogLevel <= debug)
        {
            args.Add("-debug");
        }

        return args;
    }

    private static List<string> EnvironmentFor(BootstrapParams? parameters)
    {
        List<string> environment = [];
        foreach (DictionaryEntry variable in Environment.GetEnvironmentVariables())
        {
            if (variable.Key is not ServerProcess.EventsVariable || parameters?.ContainerdTtrpcAddress is not { Length: > 0 })
            {
                environment.Add($"{variable.Key}={variable.Value}");
            }
        }

        if (parameters?.ContainerdTtrpcAddress is { Length: > 0 } events)
        {
            environment.Add($"{ServerProcess.EventsVariable}={events}");
        }

        return environment;
    }

    /// <summary>The server goes before containerd when memory runs out, and after everything else, as containerd has it.</summary>
    private static void AdjustOutOfMemoryScore(int pid)
    {
        try
        {
            string parent = File.ReadAllText(string.Create(CultureInfo.InvariantCulture, $"/proc/{Libc.getppid()}/oom_score_adj"));
            int score = Math.Min(MaxScore, int.Parse(parent, CultureInfo.InvariantCulture) + 1);
            File.WriteAllText(string.Create(CultureInfo.InvariantCulture, $"/proc/{pid}/oom_score_adj"), score.ToString(CultureInfo.InvariantCulture));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or FormatException)
        {
            // It is a preference.
        }
    }
}
