using System.Collections;
using System.Reflection;
using System.Text.Json;

namespace MicroVm.Tests.Shared;

/// <summary>Makes values of a JSON model in which nothing is left at its default.</summary>
internal sealed class Filler
{
    private int _next;

    internal T Fill<T>() => (T)Fill(typeof(T));

    /// <summary>A value of a type, with another number wherever there is one.</summary>
    private object Fill(Type type)
    {
        type = Nullable.GetUnderlyingType(type) ?? type;
        if (type == typeof(string))
        {
            return $"text \"{++_next}\"";
        }

        if (type == typeof(bool))
        {
            return true;
        }

        if (type.IsEnum)
        {
            Array values = Enum.GetValues(type);
            return values.GetValue(values.Length - 1)!;
        }

        if (type.IsPrimitive)
        {
            return Convert.ChangeType(++_next, type, System.Globalization.CultureInfo.InvariantCulture);
        }

        if (type == typeof(JsonElement))
        {
            return JsonElement.Parse($"[{++_next}]");
        }

        Type[] arguments = type.GetGenericArguments();
        object value = Activator.CreateInstance(type.IsInterface ? typeof(List<>).MakeGenericType(arguments) : type)!;
        switch (value)
        {
            case IList list:
                list.Add(Fill(arguments[0]));
                list.Add(Fill(arguments[0]));
                break;
            case IDictionary map:
                map.Add($"key {++_next}", Fill(arguments[1]));
                break;
            default:
                foreach (PropertyInfo property in type.GetProperties().Where(p => p.CanWrite))
                {
                    property.SetValue(value, Fill(property.PropertyType));
                }

                break;
        }

        return value;
    }
}
