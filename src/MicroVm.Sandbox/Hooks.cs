using System.Globalization;
using System.Text;
using MicroVm.Json;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Oci;
using MicroVm.Oci.Config;
using MicroVm.Sandbox.State;

namespace MicroVm.Sandbox;

/// <summary>Runs the bundle's hooks that belong to the runtime's namespace, with the state on standard input.</summary>
internal static unsafe class HookRunner
{
    private const int KeptOutput = 4096;

    /// <summary>Throws for malformed hooks of the runtime's namespace; those of the container's are resolved by the plan.</summary>
    /// <exception cref="SpecException">A hook cannot be run.</exception>
    internal static void Check(Hooks? hooks)
    {
        foreach ((string kind, List<Hook>? list) in new[]
        {
            ("prestart", hooks?.Prestart), ("createRuntime", hooks?.CreateRuntime), ("poststart", hooks?.Poststart), ("poststop", hooks?.Poststop),
        })
        {
            for (int i = 0; i < (list?.Count ?? 0); i++)
            {
                if (list![i]?.Path is not ['/', ..])
                {
                    throw new SpecException($"hooks.{kind}[{i}].path must be an absolute path, it is \"{list[i]?.Path}\"");
                }

                if (list[i].Timeout <= 0)
                {
                    throw new SpecException($"hooks.{kind}[{i}].timeout must be greater than zero");
                }
            }
        }
    }

    /// <summary>Runs hooks in order until one fails.</summary>
    /// <exception cref="SandboxException">A hook could not be started, failed, or took longer than its timeout.</exception>
    internal static void Run(string kind, List<Hook>? hooks, OciState state)
    {
        if (hooks is null or { Count: 0 })
        {
            return;
        }

        byte[] json = JsonRecords.Write(state);
        for (int i = 0; i < hooks.Count; i++)
        {
            try
            {
                RunOne($"error running {kind} hook #{i}", hooks[i], json, state.Bundle);
            }
            catch (LinuxException e)
            {
                throw new SandboxException($"error running {kind} hook #{i}: fork/exec {hooks[i].Path}: {e.Reason}", e);
            }
        }
    }

    private static void RunOne(string failure, Hook hook, byte[] state, string bundle)
    {
        using SafeFd input = MemoryFile.Create("hook-state", state);
        using SafeFd output = MemoryFile.Create("hook-stdout", []);
        using SafeFd error = MemoryFile.Create("hook-stderr", []);
        Spawn spawn = new()
        {
            File = hook.Path!,
            Arguments = hook.Args is { Count: > 0 } ? hook.Args : [hook.Path!],
            Environment = hook.Env ?? OwnEnvironment(),
            WorkingDirectory = bundle,
        };
        spawn.Add(input);
        spawn.Add(output);
        spawn.Add(error);
        using SpawnedProcess child = spawn.Start();
        TimeSpan timeout = hook.Timeout is { } seconds ? TimeSpan.FromSeconds(seconds) : TimeSpan.FromDays(1);
        if (child.Wait(timeout) is not { } exit)
        {
            child.Kill();
            throw new SandboxException(string.Create(CultureInfo.InvariantCulture, $"{failure}: hook ran past specified timeout of {hook.Timeout}.0s"));
        }

        if (exit is not { Status: 0, Signal: 0 })
        {
            throw new SandboxException($"{failure}: error running hook: {exit.Reason}, stdout: {Text(output)}, stderr: {Text(error)}");
        }
    }

    /// <summary>As with runc, a hook without <c>env</c> has the runtime's environment; an empty one is empty.</summary>
    private static List<string> OwnEnvironment()
    {
        List<string> environment = [];
        foreach (System.Collections.DictionaryEntry variable in Environment.GetEnvironmentVariables())
        {
            environment.Add($"{variable.Key}={variable.Value}");
        }

        return environment;
    }

    private static string Text(SafeFd file)
    {
        byte[] buffer = new byte[KeptOutput];
        fixed (byte* p = buffer)
        {
            nint n = Libc.pread(file.Value, p, KeptOutput, 0);
            return Encoding.UTF8.GetString(buffer, 0, (int)Math.Max(0, n));
        }
    }
}
